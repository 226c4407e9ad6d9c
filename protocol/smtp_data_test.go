package protocol

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// scanAll shows text to a scanner in pieces of size bytes and gives what
// passed and how it ended.
func scanAll(text string, size int) (passed string, v dataVerdict) {
	var s dataScanner
	s.begin()
	var shown []byte
	for len(text) > 0 {
		take := min(size, len(text))
		shown = append(shown, text[:take]...)
		text = text[take:]
		n, v := s.scan(shown)
		passed += string(shown[:n])
		shown = shown[n:]
		if v == dataEnd || v == dataForged {
			return passed, v
		}
	}
	return passed, dataBody
}

// TestSmuggling tries every way to set a dot between line ends, at every
// border between pieces.
func TestSmuggling(t *testing.T) {
	ends := []string{"\r\n", "\n", "\r", "\r\n\x00", "\n\x00", "\r\x00", "\x00\n", "\x00\r\n"}
	for _, front := range ends {
		for _, back := range ends {
			text := "Subject: x\r\n\r\nbody" + front + "." + back + "MAIL FROM:<a@b>\r\n"
			want := dataForged
			if strings.HasSuffix(front, "\r\n") && strings.HasPrefix(back, "\r\n") {
				want = dataEnd
			}
			for size := 1; size <= len(text); size++ {
				passed, got := scanAll(text, size)
				if got != want {
					t.Fatalf("%q in pieces of %d: got %d, want %d", text, size, got, want)
				}
				if got == dataForged && strings.Contains(passed, ".") {
					t.Fatalf("%q in pieces of %d: the dot has passed: %q", text, size, passed)
				}
			}
		}
	}
}

func TestMessageEnds(t *testing.T) {
	tests := []struct{ name, text, message string }{
		{"empty", ".\r\nQUIT\r\n", ".\r\n"},
		{"plain", "hello\r\n.\r\nQUIT\r\n", "hello\r\n.\r\n"},
		{"stuffed", "..\r\n.. x\r\n.\r\nQUIT\r\n", "..\r\n.. x\r\n.\r\n"},
		{"dots in text", "a.\r\n.b\r\n.\r\n", "a.\r\n.b\r\n.\r\n"},
		{"bare newlines that end nothing", "a\nb\rc\r\r\n\n\r\n.\r\n", "a\nb\rc\r\r\n\n\r\n.\r\n"},
		{"a bare newline before a longer line", "a\n.b\r\n.\r\n", "a\n.b\r\n.\r\n"},
		{"command-like text", "RCPT TO:<x>\r\n535 5.7.8 no\r\n.\r\nDATA\r\n", "RCPT TO:<x>\r\n535 5.7.8 no\r\n.\r\n"},
	}
	for _, test := range tests {
		for size := 1; size <= len(test.text); size++ {
			passed, got := scanAll(test.text, size)
			if got != dataEnd || passed != test.message {
				t.Fatalf("%s in pieces of %d: got %q (%d), want %q", test.name, size, passed, got, test.message)
			}
		}
	}
}

// slowEnd is the scanner's rule, a byte at a time.
func slowEnd(text []byte) (end int, v dataVerdict) {
	all := append([]byte("\r\n"), text...)
	for i := 2; i < len(all); i++ {
		if all[i] != '.' {
			continue
		}
		j := i
		for all[j-1] == 0 && j > 2 {
			j--
		}
		if c := all[j-1]; c != '\r' && c != '\n' {
			continue
		}
		if i+1 >= len(all) {
			return i - 2, dataUnsure
		}
		switch c := all[i+1]; {
		case c == '\r' && i+2 >= len(all):
			return i - 2, dataUnsure
		case c == '\r' && all[i+2] == '\n' && i == j && all[i-1] == '\n' && all[i-2] == '\r':
			return i + 3 - 2, dataEnd
		case c == '\r' || c == '\n' || c == 0:
			return 0, dataForged
		}
	}
	return len(text), dataBody
}

func FuzzDataScanner(f *testing.F) {
	f.Add([]byte("a\r\n.\r\n"), uint(3))
	f.Add([]byte("a\n.\r\n"), uint(2))
	f.Add([]byte("\x00.\n..\r.\r\r\n"), uint(1))
	f.Fuzz(func(t *testing.T, text []byte, cut uint) {
		end, want := slowEnd(text)
		var s dataScanner
		s.begin()
		at := int(cut % uint(len(text)+1))
		n, got := s.scan(text[:at])
		if got == dataBody || got == dataUnsure {
			m, v := s.scan(text[n:])
			n, got = n+m, v
		}
		if got != want {
			t.Fatalf("%q cut at %d: got %d, want %d", text, at, got, want)
		}
		if got != dataForged && n != end {
			t.Fatalf("%q cut at %d: passed %d, want %d", text, at, n, end)
		}
	})
}

func BenchmarkDataScanner(b *testing.B) {
	line := []byte("Lorem ipsum dolor sit amet, consectetur adipiscing elit. Sed do eiusmod.\r\n")
	base64 := []byte(strings.Repeat("QUJD", 19) + "\r\n")
	for name, line := range map[string][]byte{"text": line, "base64": base64, "dots": bytes.Repeat([]byte("."), 76)} {
		for _, size := range []int{4 << 10, 16 << 10, 64 << 10} {
			data := bytes.Repeat(line, size/len(line))
			b.Run(fmt.Sprintf("%s/%dKiB", name, size>>10), func(b *testing.B) {
				b.SetBytes(int64(len(data)))
				b.ReportAllocs()
				var s dataScanner
				s.begin()
				for b.Loop() {
					s.scan(data)
				}
			})
		}
	}
}
