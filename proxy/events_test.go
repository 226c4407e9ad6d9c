package proxy

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"mailreeve/guard"
	"mailreeve/protocol"
)

// conduct is how a client comes by each kind of event that no conversation
// tells: what is set up for it, and what the client does.
var conduct = map[protocol.Kind]struct {
	listener Listener
	change   func(*testing.T, *Config)
	do       func(*bed, string)
}{
	protocol.EarlyTalk: {
		Listener{Protocol: "smtp", TLS: protocol.TLSNone, GreetDelay: guard.Duration(5 * time.Second)},
		nil, func(b *bed, from string) { b.dial(from).send("EHLO x") },
	},
	protocol.Injection: {
		Listener{Protocol: "imap", TLS: protocol.TLSStartTLS},
		nil, func(b *bed, from string) { b.dial(from).send("a STARTTLS", "b NOOP") },
	},
	protocol.Loitering: {
		smtpPlain,
		func(_ *testing.T, c *Config) { c.Timeouts.FirstCommand = guard.Duration(300 * time.Millisecond) },
		func(b *bed, from string) { b.dial(from).rest() },
	},
	protocol.SlowDrip: {
		smtpPlain,
		func(_ *testing.T, c *Config) {
			c.Timeouts.Command, c.Limits.MinDataRate = guard.Duration(300*time.Millisecond), 1000
		},
		func(b *bed, from string) {
			c := b.dial(from)
			c.send("EHLO x", "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA")
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for _, err := fmt.Fprint(c, "x"); err == nil; _, err = fmt.Fprint(c, "x") {
				<-tick.C
			}
		},
	},
	protocol.TLSFailure: {
		Listener{Protocol: "imap", TLS: protocol.TLSImplicit},
		nil, func(b *bed, from string) { b.dial(from).send("a LOGIN alice right") },
	},
	protocol.LeftSilently: {
		imapPlain,
		nil, func(b *bed, from string) {
			c := b.dial(from)
			c.expect("* OK")
			c.Close()
		},
	},
	protocol.LeftEarly: {
		imapPlain,
		nil, func(b *bed, from string) {
			c := b.dial(from)
			c.send("a NOOP")
			c.expect("* OK")
			c.expect("a OK")
			c.Close()
		},
	},
	protocol.TooManyConnections: {
		imapPlain,
		func(_ *testing.T, c *Config) { c.Limits.ConnectionsPerAddress = 1 },
		func(b *bed, from string) {
			b.dial(from).expect("* OK")
			b.knock(from)
		},
	},
	protocol.ConnectionRate: {
		imapPlain,
		func(t *testing.T, c *Config) { c.Limits.ConnectionRate = limit(t, "1/1h") },
		func(b *bed, from string) {
			b.dial(from).expect("* OK")
			b.knock(from)
		},
	},
}

// Every kind of event is told somewhere: by a conversation, in a transcript, or
// by the data path, here. A rule of the operator's may count each.
func TestEveryKindIsTold(t *testing.T) {
	told := toldInTranscripts(t)
	for _, kind := range declaredKinds(t) {
		c, ours := conduct[kind]
		switch {
		case ours == told[kind]:
			t.Errorf("%s: told in a transcript: %v; by the data path: %v; want one of them", kind, told[kind], ours)
		case ours:
			t.Run(string(kind), func(t *testing.T) {
				t.Parallel()
				b := newBed(t, c.listener, mx, func(cfg *Config, g *guard.Config) {
					if c.change != nil {
						c.change(t, cfg)
					}
					g.Rules = []guard.RuleConfig{{Name: "told", Key: "address", Limit: limit(t, "1/1h"),
						Points: map[protocol.Kind]float64{kind: 1}}}
				})
				c.do(b, "127.0.40.1")
				b.waitFor("the ban", func() bool {
					bans := b.guard.Bans(guard.BanFilter{})
					return len(bans) == 1 && bans[0].Rule == "told"
				})
			})
		}
	}
}

// declaredKinds reads the constants of the type Kind.
func declaredKinds(t *testing.T) (kinds []protocol.Kind) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../protocol/event.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if name, ok := spec.Type.(*ast.Ident); ok && name.Name == "Kind" {
			for _, v := range spec.Values {
				word, err := strconv.Unquote(v.(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				kinds = append(kinds, protocol.Kind(word))
			}
		}
		return false
	})
	if len(kinds) < 20 {
		t.Fatalf("only %d kinds: %v", len(kinds), kinds)
	}
	return kinds
}

// toldInTranscripts gathers the kinds that transcripts expect.
func toldInTranscripts(t *testing.T) map[protocol.Kind]bool {
	t.Helper()
	files, err := filepath.Glob("../protocol/testdata/*/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	told := map[protocol.Kind]bool{}
	mark := regexp.MustCompile(`(?m)^! ([a-z-]+)`)
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range mark.FindAllSubmatch(text, -1) {
			told[protocol.Kind(m[1])] = true
		}
	}
	return told
}
