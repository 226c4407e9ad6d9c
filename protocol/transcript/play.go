package transcript

import (
	"bytes"
	"fmt"
	"strings"

	"mailreeve/protocol"
)

// Delivery says how the bytes of a dialogue come in.
type Delivery uint8

const (
	// ByLine: a line at a time, as written.
	ByLine Delivery = iota
	// ByByte: a byte at a time.
	ByByte
	// Coalesced: lines of one side that follow each other come at once.
	Coalesced
)

// String gives the delivery's name for subtests.
func (d Delivery) String() string { return [...]string{"lines", "bytes", "coalesced"}[d] }

// Play plays a transcript against a conversation of p, with the relay's part
// played as the protocol package asks for it. The error names the line.
func Play(p *protocol.Protocol, t *Transcript, d Delivery) error {
	if t.Delivery != "" && t.Delivery != d.String() {
		return nil
	}
	pl := &player{protocol: p, conversation: p.New(t.Setup), entries: t.Entries}
	pl.do(pl.conversation.Start(), nil)
	for at := 0; at <= len(pl.entries); {
		// What an input brings about stands behind it, up to the next input.
		first := at
		for at < len(pl.entries) && !pl.entries[at].isInput() {
			at++
		}
		if err := pl.settle(pl.entries[first:at]); err != nil {
			return err
		}
		if at == len(pl.entries) {
			return pl.finish()
		}
		last := at + 1
		for d == Coalesced && last < len(pl.entries) && pl.entries[last].follows(pl.entries[at]) {
			last++
		}
		if err := pl.feed(pl.entries[at:last], d); err != nil {
			return err
		}
		at = last
	}
	return nil
}

// isInput tells whether an entry is something that happens to us.
func (e Entry) isInput() bool {
	return e.Mark == Client || e.Mark == Server || e.Mark == Action && e.Word == "server closes"
}

// follows tells whether e's bytes may come in together with those of before.
func (e Entry) follows(before Entry) bool {
	return !e.Apart && e.Mark == before.Mark && (e.Mark == Client || e.Mark == Server)
}

// A player is a relay without sockets.
type player struct {
	protocol     *protocol.Protocol
	conversation protocol.Conversation
	entries      []Entry

	// client and server are the bytes that came in and are not used up;
	// clientWaits is set after Wait, the others after More.
	client, server             []byte
	clientWaits                bool
	clientHungry, serverHungry bool

	// What went out, and what should have gone out by now.
	toClient, toServer         []byte
	wantToClient, wantToServer []byte

	// waiting are the client's lines that wait.
	waiting [][]byte

	effects  []effect
	login    string
	blind    bool
	ended    bool
	answers  []Entry
	failure  error
	position int
}

// An effect is what the conversation brought about, apart from bytes.
type effect struct {
	mark Mark
	word string
	keys map[string]string
}

func (e effect) String() string {
	var text strings.Builder
	text.WriteString([...]string{Told: "! ", Asked: "? ", Action: "-- "}[e.mark] + e.word)
	for _, key := range []string{"login", "identities", "mechanism", "recipient", "code"} {
		if e.keys[key] != "" {
			fmt.Fprintf(&text, " %s=%q", key, e.keys[key])
		}
	}
	return text.String()
}

// feed gives the conversation the bytes of entries of one side.
func (p *player) feed(entries []Entry, d Delivery) error {
	p.position = entries[0].Line
	p.answers = p.answersBehind(entries[len(entries)-1].Line)
	if p.ended {
		return fmt.Errorf("%d: the connection has ended before this", p.position)
	}
	if entries[0].Mark == Action {
		p.do(p.conversation.ServerGone(), nil)
		return p.failure
	}
	var text []byte
	for _, e := range entries {
		text = append(text, e.Text...)
		switch {
		case e.Swallowed:
		case e.Waits:
			p.waiting = append(p.waiting, e.Text)
		case e.Mark == Client:
			p.wantToServer = append(p.wantToServer, e.Text...)
		default:
			p.wantToClient = append(p.wantToClient, e.Text...)
		}
	}
	size := len(text)
	if d == ByByte {
		size = 1
	}
	for ; len(text) > 0; text = text[size:] {
		if entries[0].Mark == Client {
			p.client = append(p.client, text[:size]...)
			p.clientHungry = false
		} else {
			p.server = append(p.server, text[:size]...)
			p.serverHungry = false
		}
		p.pump()
	}
	return p.failure
}

// answersBehind gives the entries behind a line, up to the next input, that
// answer the conversation: verdicts, and how a dial goes.
func (p *player) answersBehind(line int) []Entry {
	var answers []Entry
	for _, e := range p.entries {
		if e.Line <= line {
			continue
		}
		if e.isInput() {
			break
		}
		if e.Mark == Asked || e.Mark == Action && strings.HasPrefix(e.Word, "dial") {
			answers = append(answers, e)
		}
	}
	return answers
}

// answer takes the next answer if it is of that kind.
func (p *player) answer(mark Mark) string {
	if len(p.answers) == 0 || p.answers[0].Mark != mark {
		return ""
	}
	word := p.answers[0].Word
	p.answers = p.answers[1:]
	return word
}

// pump shows bytes until nothing moves any more.
func (p *player) pump() {
	for rounds := 0; p.failure == nil && !p.ended; rounds++ {
		if rounds > 1<<20 {
			p.fail("the conversation goes round in circles")
			return
		}
		if p.blind {
			p.toServer, p.client = append(p.toServer, p.client...), nil
			p.toClient, p.server = append(p.toClient, p.server...), nil
			return
		}
		switch {
		case len(p.server) > 0 && !p.serverHungry:
			p.clientWaits = false
			p.show(p.conversation.Server, &p.server)
		case len(p.client) > 0 && !p.clientHungry && !p.clientWaits:
			p.show(p.conversation.Client, &p.client)
		default:
			return
		}
	}
}

// show shows a side's bytes. Where a step has used them up, a relay asks once
// more before it reads: with nothing to show.
func (p *player) show(to func([]byte) protocol.Step, side *[]byte) {
	step := to(bytes.Clone(*side))
	p.do(step, side)
	if step.Do != protocol.Continue || len(*side) > 0 || p.ended || p.blind {
		return
	}
	step = to([]byte{})
	if step.Do != protocol.More && step.Do != protocol.Wait && step.Do != protocol.End {
		p.fail("shown nothing, the conversation wants something done")
	}
	p.do(step, side)
}

// do carries a step out, as the relay does.
func (p *player) do(step protocol.Step, shown *[]byte) {
	p.tell(step)
	if step.Take > 0 {
		if shown == nil || step.Take > len(*shown) {
			p.fail("took %d bytes more than were shown", step.Take)
			return
		}
		part := (*shown)[:step.Take]
		if step.Forward && shown == &p.client {
			p.toServer = append(p.toServer, part...)
		} else if step.Forward {
			p.toClient = append(p.toClient, part...)
		}
		*shown = (*shown)[step.Take:]
	}
	p.toServer = append(p.toServer, step.ToServer...)
	p.toClient = append(p.toClient, step.ToClient...)
	p.act(step, shown)
}

// tell notes what the guard is told.
func (p *player) tell(step protocol.Step) {
	if step.Outcome != protocol.Unsettled {
		word := step.Outcome.String()
		if step.Outcome == protocol.Failure {
			word = string(protocol.AuthFailure)
		}
		p.effects = append(p.effects, effect{Told, word, map[string]string{"login": p.login, "code": step.Code}})
	}
	for _, e := range step.Events {
		p.effects = append(p.effects, effect{Told, string(e.Kind),
			map[string]string{"login": e.Login, "recipient": e.Recipient, "code": e.Code}})
	}
}

// act does what the step asks for.
func (p *player) act(step protocol.Step, shown *[]byte) {
	idle := step.Take == 0 && len(step.ToServer) == 0 && len(step.ToClient) == 0
	switch step.Do {
	case protocol.Continue:
		if shown != nil && idle && len(step.Events) == 0 {
			p.fail("Continue, but nothing happened")
		}
	case protocol.More:
		if shown != nil && len(*shown) >= protocol.MaxShown {
			p.fail("More, with %d bytes shown", len(*shown))
		}
		if shown == &p.client {
			p.clientHungry = true
		} else {
			p.serverHungry = true
		}
	case protocol.Wait:
		p.clientWaits = true
	case protocol.Hold:
		p.ask(step.Credential)
	case protocol.Dial:
		p.dial()
	case protocol.StartTLS:
		p.note("tls")
		p.server = nil
		p.conversation.Secured()
		if len(p.client) == 0 {
			// ManageSieve repeats its capabilities, unasked.
			p.do(p.conversation.Client(nil), &p.client)
		}
	case protocol.Blind:
		p.note("blind")
		p.blind = true
	case protocol.End:
		p.note("end")
		p.ended = true
	}
}

func (p *player) note(action string) {
	p.effects = append(p.effects, effect{mark: Action, word: action})
}

func (p *player) ask(c *protocol.Credential) {
	if c == nil {
		p.fail("Hold without a credential")
		return
	}
	word := p.answer(Asked)
	verdict, ok := verdicts[word]
	if !ok {
		p.fail("the guard is asked about %q (%s); there is no answer here", c.Identities, c.Mechanism)
		return
	}
	p.login = ""
	if len(c.Identities) > 0 {
		p.login = c.Identities[0]
	}
	p.effects = append(p.effects, effect{Asked, word, map[string]string{
		"login": p.login, "identities": strings.Join(c.Identities, ","),
		"mechanism": c.Mechanism, "secret": string(c.Secret),
	}})
	p.conversation.Verdict(verdict)
}

// verdicts are the answers by name.
var verdicts = map[string]protocol.Verdict{
	"pass": protocol.Pass, "repeated": protocol.Repeated, "guarded": protocol.Guarded,
	"busy": protocol.Busy, "refused": protocol.Refused, "banned": protocol.Banned,
}

func (p *player) dial() {
	switch word := p.answer(Action); word {
	case "dial":
		p.note("dial")
		p.conversation.Dialled()
	case "dial fails":
		p.note("dial fails")
		p.do(p.conversation.ServerGone(), nil)
	default:
		p.fail("the server is dialled; the transcript does not say so")
	}
}
