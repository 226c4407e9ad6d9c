package protocol_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"mailreeve/protocol"
	"mailreeve/protocol/transcript"
)

// A pocketRelay obeys a conversation without sockets, and checks what holds
// for every conversation whatever both sides say.
type pocketRelay struct {
	t    *testing.T
	conv protocol.Conversation
	// verdict is the guard.
	verdict func(*protocol.Credential) protocol.Verdict
	// dialFails makes every dial fail; hear, if set, plays the server: it is
	// given what the server gets.
	dialFails bool
	hear      func([]byte)

	client, server     []byte
	toClient, toServer []byte
	connected          bool
	blind, ended       bool
	waits              bool
	// A side is hungry if it was asked for more and has not sent it.
	hungryClient, hungryServer bool
	// passed counts credentials that may go and are not settled.
	passed int
	// heard is how many of the server's bytes were shown in all.
	heard, heardAtPass int
	shown              []byte
}

func (r *pocketRelay) start() { r.step(r.conv.Start(), nil, false) }

// send gives the client's bytes, tell the server's.
func (r *pocketRelay) send(b []byte) {
	r.client = append(r.client, b...)
	r.hungryClient = len(b) == 0
	r.pump()
}

func (r *pocketRelay) tell(b []byte) {
	r.answer(b)
	r.pump()
}

// answer queues the server's bytes, from within hear.
func (r *pocketRelay) answer(b []byte) {
	if r.connected && len(b) > 0 {
		r.server = append(r.server, b...)
		r.hungryServer = false
	}
}

// pump shows what there is until both sides want more.
func (r *pocketRelay) pump() {
	idle := 0
	for !r.ended {
		before := len(r.toClient) + len(r.toServer) - len(r.client) - len(r.server)
		if idle > 20 {
			r.t.Fatalf("goes round in circles; client %.200q, server %.200q", r.client, r.server)
		}
		switch {
		case r.blind:
			r.pass(&r.client, len(r.client), true)
			r.pass(&r.server, len(r.server), false)
			return
		case len(r.server) > 0 && !r.hungryServer:
			n := min(len(r.server), protocol.MaxShown)
			r.shown = bytes.Clone(r.server[:n])
			r.heard += n
			step := r.conv.Server(r.shown)
			r.waits = false
			r.hungryServer = step.Do == protocol.More
			r.step(step, &r.server, false)
		case len(r.client) > 0 && !r.hungryClient && !r.waits:
			n := min(len(r.client), protocol.MaxShown)
			r.shown = bytes.Clone(r.client[:n])
			step := r.conv.Client(r.shown)
			r.hungryClient = step.Do == protocol.More
			r.step(step, &r.client, true)
		default:
			return
		}
		idle++
		if len(r.toClient)+len(r.toServer)-len(r.client)-len(r.server) != before {
			idle = 0
		}
	}
}

func (r *pocketRelay) pass(from *[]byte, n int, client bool) {
	part := (*from)[:n]
	*from = (*from)[n:]
	if client {
		r.toServer = append(r.toServer, part...)
		if r.hear != nil {
			r.hear(bytes.Clone(part))
		}
		return
	}
	r.toClient = append(r.toClient, part...)
}

func (r *pocketRelay) step(s protocol.Step, from *[]byte, client bool) {
	r.check(s)
	if client && s.Do == protocol.More && r.conv.Phase() == protocol.Judged {
		r.t.Fatalf("reads on while a credential is with the server")
	}
	if s.Take > 0 {
		if from == nil || s.Take > len(r.shown) {
			r.t.Fatalf("takes %d of %d bytes", s.Take, len(r.shown))
		}
		if s.Forward {
			if client && !r.connected {
				r.t.Fatalf("forwards %.100q to nobody", r.shown)
			}
			r.pass(from, s.Take, client)
		} else {
			*from = (*from)[s.Take:]
		}
	}
	if len(s.ToServer) > 0 {
		own := bytes.Clone(s.ToServer)
		r.pass(&own, len(own), true)
	}
	r.toClient = append(r.toClient, s.ToClient...)
	r.do(s)
}

// check is what every step must keep to.
func (r *pocketRelay) check(s protocol.Step) {
	if s.Do == protocol.More && s.Take == 0 && len(r.shown) >= protocol.MaxShown {
		r.t.Fatalf("asks for more than it may be shown")
	}
	if s.Take < 0 {
		r.t.Fatalf("takes %d bytes", s.Take)
	}
	if s.Outcome == protocol.Unsettled {
		return
	}
	if r.passed != 1 {
		r.t.Fatalf("%s, but no credential is outstanding", s.Outcome)
	}
	definite := s.Outcome == protocol.Success || s.Outcome == protocol.Failure
	if definite && r.heard == r.heardAtPass {
		r.t.Fatalf("%s before the server said anything", s.Outcome)
	}
	r.passed = 0
}

func (r *pocketRelay) do(s protocol.Step) {
	switch s.Do {
	case protocol.Wait:
		r.waits = true
	case protocol.Hold:
		if r.passed != 0 {
			r.t.Fatalf("a second credential while one is outstanding")
		}
		v := r.verdict(s.Credential)
		if v == protocol.Pass {
			r.passed, r.heardAtPass = 1, r.heard
		}
		r.conv.Verdict(v)
	case protocol.Dial:
		if r.connected {
			r.t.Fatalf("dials twice")
		}
		if r.dialFails {
			r.step(r.conv.ServerGone(), nil, false)
			return
		}
		r.connected = true
		r.conv.Dialled()
		if r.hear != nil {
			r.hear(nil)
		}
	case protocol.StartTLS:
		r.connected, r.server = false, nil
		r.passed = 0
		r.conv.Secured()
	case protocol.Blind:
		r.blind = true
	case protocol.End:
		r.ended = true
		if r.passed != 0 && r.heard > r.heardAtPass+protocol.MaxShown {
			r.t.Fatalf("ends without settling")
		}
	}
}

// seeds gives each transcript's setup and what both sides say in it.
func seeds(f *testing.F, dir string, add func(*transcript.Transcript, []byte, []byte)) {
	f.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil || len(names) == 0 {
		f.Fatalf("no transcripts in %s: %v", dir, err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		tr, err := transcript.Parse(text)
		if err != nil {
			f.Fatal(fmt.Errorf("%s:%w", name, err))
		}
		var client, server []byte
		for _, e := range tr.Entries {
			switch {
			case len(e.Text) > 1<<14:
			case e.Mark == transcript.Client:
				client = append(client, e.Text...)
			case e.Mark == transcript.Server:
				server = append(server, e.Text...)
			}
		}
		add(tr, client, server)
	}
}

// fuzzDialogue lets both sides say anything, cut and mixed in any way. Each
// byte of cuts gives one side some bytes: the low bit says which, the rest how
// many. flags choose the setup.
func fuzzDialogue(f *testing.F, p *protocol.Protocol) {
	f.Helper()
	seeds(f, filepath.Join("testdata", p.Name), func(tr *transcript.Transcript, client, server []byte) {
		var flags byte
		if tr.Setup.Secure {
			flags |= 1
		}
		if tr.Setup.Soft {
			flags |= 4
		}
		if tr.Setup.Offer.Family == "dovecot" {
			flags |= 8
		}
		f.Add(client, server, []byte("\xfe\xff\x10\x21\x42\x33"), flags)
	})
	f.Fuzz(func(t *testing.T, client, server, cuts []byte, flags byte) {
		offer := &protocol.Offer{Host: "mx.example.test", Capabilities: []string{"IMAP4rev1", "AUTH=PLAIN"}}
		if flags&8 != 0 {
			offer.Family = "dovecot"
		}
		set := protocol.Setup{Hostname: "proxy.example.test", Offer: offer, TLS: protocol.TLSStartTLS,
			Secure: flags&1 != 0, PlaintextAuth: flags&2 != 0, Soft: flags&4 != 0}
		asked := byte(0)
		r := &pocketRelay{t: t, conv: p.New(set), dialFails: flags&16 != 0,
			verdict: func(*protocol.Credential) protocol.Verdict {
				asked++
				if flags&32 != 0 && asked%2 == 0 {
					return protocol.Verdict(asked%7) + 2
				}
				return protocol.Pass
			}}
		r.start()
		for _, c := range cuts {
			if c&1 == 0 {
				n := min(int(c>>1)+1, len(client))
				r.send(client[:n])
				client = client[n:]
			} else if r.connected {
				n := min(int(c>>1)+1, len(server))
				r.tell(server[:n])
				server = server[n:]
			}
		}
		for len(client)+len(server) > 0 && !r.ended {
			n := min(40, len(client))
			r.send(client[:n])
			client = client[n:]
			n = min(40, len(server))
			r.tell(server[:n])
			server = server[n:]
		}
		_ = r.conv.Phase().String()
		if !r.ended && !r.blind {
			r.step(r.conv.ServerGone(), nil, false)
			if !r.ended || r.passed != 0 {
				t.Fatalf("the server is gone: ended %v, unsettled credentials %d", r.ended, r.passed)
			}
		}
	})
}
