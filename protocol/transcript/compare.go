package transcript

import (
	"bytes"
	"fmt"
	"strings"
)

// settle compares what an input brought about with the entries behind it.
func (p *player) settle(entries []Entry) error {
	effects := p.effects
	p.effects = nil
	for _, e := range entries {
		p.position = e.Line
		switch {
		case e.Mark == ToClient:
			p.wantToClient = append(p.wantToClient, e.Text...)
			p.reached("client", p.toClient, p.wantToClient)
		case e.Mark == ToServer:
			p.wantToServer = append(p.wantToServer, e.Text...)
			p.reached("server", p.toServer, p.wantToServer)
		case e.Mark == Released && len(p.waiting) == 0:
			p.fail("no line waits")
		case e.Mark == Released:
			p.wantToServer = append(p.wantToServer, p.waiting[0]...)
			p.waiting = p.waiting[1:]
			p.reached("server", p.toServer, p.wantToServer)
		case strings.HasPrefix(e.Word, "phase: "):
			if got := p.conversation.Phase().String(); got != e.Word[len("phase: "):] {
				p.fail("phase: got %s, want %s", got, e.Word[len("phase: "):])
			}
		case len(effects) == 0:
			p.fail("did not happen: %s", e.Word)
		default:
			p.compare(effects[0], e)
			effects = effects[1:]
		}
		if p.failure != nil {
			return p.failure
		}
	}
	if len(effects) > 0 {
		p.fail("not in the transcript: %s", effects[0])
	}
	p.prefix("client", p.toClient, p.wantToClient)
	p.prefix("server", p.toServer, p.wantToServer)
	return p.failure
}

func (p *player) compare(got effect, want Entry) {
	if got.mark != want.Mark || got.word != want.Word {
		p.fail("got %s, want %s", got, want.Word)
		return
	}
	for key, value := range want.Keys {
		if got.keys[key] != value {
			p.fail("%s: %s: got %q, want %q", want.Word, key, got.keys[key], value)
		}
	}
}

// reached checks that all of want has gone out.
func (p *player) reached(side string, got, want []byte) {
	if !bytes.HasPrefix(got, want) {
		p.differ(side, got, want)
	}
}

// prefix checks that nothing has gone out but what should have.
func (p *player) prefix(side string, got, want []byte) {
	if !bytes.HasPrefix(want, got) {
		p.differ(side, got, want)
	}
}

func (p *player) differ(side string, got, want []byte) {
	at := 0
	for at < len(got) && at < len(want) && got[at] == want[at] {
		at++
	}
	p.fail("to the %s, after %d bytes:\n got %q\nwant %q", side, at, excerpt(got[at:]), excerpt(want[at:]))
}

func excerpt(text []byte) []byte { return text[:min(len(text), 300)] }

// finish checks that everything that should have gone out has.
func (p *player) finish() error {
	p.reached("client", p.toClient, p.wantToClient)
	p.reached("server", p.toServer, p.wantToServer)
	if p.failure == nil && len(p.waiting) > 0 {
		p.fail("a line waits that is never released")
	}
	if p.failure == nil && p.blind && len(p.client)+len(p.server) > 0 {
		p.fail("bytes left over")
	}
	return p.failure
}

// fail notes the first failure.
func (p *player) fail(format string, args ...any) {
	if p.failure == nil {
		p.failure = fmt.Errorf("%d: %s", p.position, fmt.Sprintf(format, args...))
	}
}
