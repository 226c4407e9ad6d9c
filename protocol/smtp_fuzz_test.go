package protocol_test

import (
	"bytes"
	"net/netip"
	"path/filepath"
	"regexp"
	"testing"

	"mailreeve/protocol"
	"mailreeve/protocol/transcript"
)

// A dialogue in fuzzed bytes is pieces of the client and the server in turn: a
// byte whose lowest bit tells the side and whose other bits the size, then as
// many bytes. 0xfe and 0xff let the server close and the guard refuse.
const (
	fuzzClose  = 0xfe
	fuzzRefuse = 0xff
)

// fuzzBytes writes a transcript as a fuzzed dialogue.
func fuzzBytes(tr *transcript.Transcript) []byte {
	var out []byte
	for _, e := range tr.Entries {
		side := byte(0)
		switch {
		case e.Mark == transcript.Server:
			side = 1
		case e.Mark == transcript.Asked && e.Word != "pass":
			out = append(out, fuzzRefuse)
			continue
		case e.Mark == transcript.Action && e.Word == "server closes":
			out = append(out, fuzzClose)
			continue
		case e.Mark != transcript.Client:
			continue
		}
		for piece := range bytesInPieces(e.Text, 100) {
			out = append(append(out, byte(len(piece))<<1|side), piece...)
		}
	}
	return out
}

func bytesInPieces(text []byte, size int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(text) > 0 {
			n := min(size, len(text))
			if !yield(text[:n]) {
				return
			}
			text = text[n:]
		}
	}
}

// A fuzzRelay obeys a conversation and holds it to its promises.
type fuzzRelay struct {
	t              *testing.T
	c              protocol.Conversation
	client, server []byte
	toServer       []byte
	waits, refuses bool
	outstanding    bool
	told           bool // the server has spoken since
	passed         int
	ended          bool
}

func (r *fuzzRelay) show(side *[]byte) {
	for rounds := 0; !r.ended; rounds++ {
		if rounds > len(*side)+64 {
			r.t.Fatal("the conversation goes round in circles")
		}
		fromServer := side == &r.server
		if !fromServer && r.waits {
			return
		}
		var step protocol.Step
		if fromServer {
			step = r.c.Server(*side)
		} else {
			step = r.c.Client(*side)
		}
		if !r.obey(step, side, fromServer) {
			return
		}
	}
}

// obey does what a step asks for; it returns true to show the rest.
func (r *fuzzRelay) obey(step protocol.Step, side *[]byte, fromServer bool) bool {
	if step.Take < 0 || step.Take > len(*side) {
		r.t.Fatalf("took %d of %d bytes", step.Take, len(*side))
	}
	r.check(step, fromServer)
	if step.Forward && !fromServer {
		r.toServer = append(r.toServer, (*side)[:step.Take]...)
	}
	if bytes.HasPrefix(step.ToServer, []byte("XCLIENT")) {
		if !fromServer || len(step.ToServer) > 512 || !ownXClient.Match(step.ToServer) {
			r.t.Fatalf("we say %q to the server", step.ToServer)
		}
	} else {
		r.toServer = append(r.toServer, step.ToServer...)
	}
	*side = (*side)[step.Take:]
	if fromServer && step.Take > 0 {
		r.waits = false
	}
	_ = r.c.Phase().String()
	switch step.Do {
	case protocol.More:
		if len(*side) >= protocol.MaxShown {
			r.t.Fatalf("asks for more than %d bytes", len(*side))
		}
		if !fromServer && r.c.Phase() == protocol.Judged {
			r.t.Fatalf("reads on while a credential is with the server")
		}
		return false
	case protocol.Wait:
		r.waits = true
	case protocol.Hold:
		if r.refuses {
			r.refuses = false
			r.c.Verdict(protocol.Guarded)
			break
		}
		r.passed++
		r.outstanding = true
		r.c.Verdict(protocol.Pass)
	case protocol.Dial:
		r.c.Dialled()
	case protocol.StartTLS:
		r.server, r.outstanding = nil, false
		r.c.Secured()
	case protocol.End, protocol.Blind:
		r.ended = true
	}
	return true
}

// byClient are the events that need no word of the server.
var byClient = map[protocol.Kind]bool{
	protocol.ForeignProtocol: true, protocol.BareNewline: true, protocol.Pipelining: true,
	protocol.BadCommand: true, protocol.TooManyErrors: true, protocol.LineTooLong: true,
	protocol.PlaintextAuth: true, protocol.AuthAborted: true, protocol.AuthNotOffered: true,
}

func (r *fuzzRelay) check(step protocol.Step, fromServer bool) {
	if step.Outcome != protocol.Unsettled {
		if !r.outstanding {
			r.t.Fatalf("outcome %v of no credential", step.Outcome)
		}
		if !fromServer && step.Outcome != protocol.Neutral && !(r.told && step.Outcome == protocol.Failure) {
			r.t.Fatalf("outcome %v without a word of the server", step.Outcome)
		}
		r.outstanding = false
	}
	r.told = r.outstanding && (r.told || fromServer && step.Take > 0)
	for _, e := range step.Events {
		if !fromServer && !byClient[e.Kind] {
			r.t.Fatalf("%s without a word of the server", e.Kind)
		}
	}
}

var (
	authWithSecret = regexp.MustCompile(`(?im)^auth[ \t]+plain[ \t]+\S+\r$`)
	barredCommand  = regexp.MustCompile(`(?im)^(xclient|xforward|atrn|starttls)\b`)
	ownXClient     = regexp.MustCompile(`^XCLIENT( (NAME|REVERSE_NAME|PROTO|PORT|DESTADDR|DESTPORT|HELO|ADDR)=([!-*,-<>-~]|\+[0-9A-F]{2})+)*\r\n$`)
	dotBetween     = regexp.MustCompile(`(?:\r\n|\r|\n)\x00*\.\x00*(?:\r\n|\r|\n)`)
)

// checkServer looks at all that reached the server, where that is commands and
// messages only.
func (r *fuzzRelay) checkServer(sawMessage bool) {
	if bytes.Contains(bytes.ToUpper(r.toServer), []byte("BDAT")) {
		return
	}
	for _, end := range dotBetween.FindAll(r.toServer, -1) {
		if string(end) != "\r\n.\r\n" {
			r.t.Fatalf("a forged end of a message reached the server: %q", end)
		}
	}
	if sawMessage {
		return
	}
	if n := len(authWithSecret.FindAll(r.toServer, -1)); n > r.passed {
		r.t.Fatalf("%d credentials reached the server, %d were let pass", n, r.passed)
	}
	if word := barredCommand.Find(r.toServer); word != nil {
		r.t.Fatalf("%q reached the server", word)
	}
}

func FuzzSMTP(f *testing.F) {
	for i, name := range []string{"smtp", "submission"} {
		files, err := filepath.Glob("testdata/" + name + "/*.txt")
		if err != nil || len(files) == 0 {
			f.Fatal("no transcripts:", err)
		}
		for _, file := range files {
			tr, err := transcript.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			flags := byte(i)
			if tr.Setup.Secure {
				flags |= 2
			}
			if tr.Setup.TLS == protocol.TLSStartTLS {
				flags |= 4
			}
			if tr.Setup.Soft {
				flags |= 8
			}
			if tr.Setup.XClient != nil {
				flags |= 64
			}
			f.Add(flags, fuzzBytes(tr))
		}
	}
	f.Fuzz(func(t *testing.T, flags byte, text []byte) {
		setup := protocol.Setup{
			Hostname: "p.test", TLS: protocol.TLSNone, Secure: flags&2 != 0, Soft: flags&8 != 0,
			PlaintextAuth: flags&16 != 0, NoAuth: flags&32 != 0,
			Offer: &protocol.Offer{Host: "mx.test", Capabilities: []string{"PIPELINING", "AUTH PLAIN LOGIN", "CHUNKING"}},
		}
		if flags&4 != 0 {
			setup.TLS = protocol.TLSStartTLS
		}
		if flags&64 != 0 {
			setup.XClient = &protocol.ClientAddress{
				Client: netip.MustParseAddrPort("192.0.2.7:4711"), Local: netip.MustParseAddrPort("192.0.2.25:25"),
			}
		}
		p := protocol.Lookup([]string{"smtp", "submission"}[flags&1])
		r := &fuzzRelay{t: t, c: p.New(setup)}
		r.c.Start()
		sawMessage := false
		for len(text) > 0 && !r.ended {
			size := int(text[0] >> 1)
			side := &r.client
			switch {
			case text[0] == fuzzRefuse:
				r.refuses = true
				text = text[1:]
				continue
			case text[0] == fuzzClose:
				r.check(r.c.ServerGone(), true)
				r.ended = true
				continue
			case text[0]&1 == 1:
				side = &r.server
			}
			text = text[1:]
			size = min(size, len(text))
			*side = append(*side, text[:size]...)
			text = text[size:]
			sawMessage = sawMessage || bytes.Contains(r.server, []byte("354"))
			r.show(side)
			r.show(&r.client)
		}
		r.checkServer(sawMessage)
	})
}
