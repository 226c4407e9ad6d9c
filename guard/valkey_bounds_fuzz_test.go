package guard

import "testing"

// FuzzStoreAnswers: wherever what the store says is cut, as much of it is
// believed, and nothing grows beyond its bound.
func FuzzStoreAnswers(f *testing.F) {
	for _, text := range []string{
		"+OK\r\n", "-ERR no\r\n:1\r\n", "$3\r\nabc\r\n$-1\r\n*-1\r\n_\r\n", "#t\r\n,1.5\r\n(12\r\n",
		"%1\r\n+a\r\n*2\r\n$0\r\n\r\n~1\r\n=5\r\ntxt:a\r\n", ">2\r\n+invalidate\r\n*1\r\n$1\r\na\r\n+OK\r\n",
		"*2\r\n*0\r\n%0\r\n", "$-7\r\n", "*4611686018427387904\r\n", "*1\r\n>1\r\n+a\r\n", "$5\r\nab", "+half", "$999999999999999999\r\n",
	} {
		f.Add([]byte(text), byte(3), true)
		f.Add([]byte(text), byte(1), false)
	}
	f.Fuzz(func(t *testing.T, text []byte, step byte, unasked bool) {
		whole := respWatch{unasked: unasked}
		want, wantErr := whole.watch(text)
		cut := respWatch{unasked: unasked}
		var got int64
		var gotErr error
		for rest := text; len(rest) > 0 && gotErr == nil; {
			n := min(int(step)+1, len(rest))
			var ended int64
			ended, gotErr = cut.watch(rest[:n])
			got += ended
			rest = rest[n:]
		}
		if got != want || gotErr != wantErr {
			t.Errorf("at once %d messages, %v; in pieces of %d %d messages, %v", want, wantErr, int(step)+1, got, gotErr)
		}
		if wantErr != nil {
			return // it is not read any further
		}
		for _, w := range []*respWatch{&whole, &cut} {
			if len(w.line) > maxAnswerLine+len(text) || len(w.open) > maxNested || w.skip < 0 || w.skip > maxAnswer {
				t.Errorf("%d octets of a line, %d lists, %d octets to skip", len(w.line), len(w.open), w.skip)
			}
		}
	})
}
