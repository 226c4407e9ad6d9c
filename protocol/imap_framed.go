package protocol

import "bytes"

// An imapFramed follows both directions after login where going blind is not
// safe: a server that knows UNAUTHENTICATE (RFC 8437) takes logins again after
// it, and behind COMPRESS (RFC 4978) nothing can be read. It looks at tags,
// verbs and literals only, and holds no more than a line's end.
//
// Each command gets exactly one tagged reply, so that counting suffices. Where
// the reply decides how the client's next bytes are to be read (a synchronising
// literal, IDLE), the command waits until it is the only one.
type imapFramed struct {
	c *imapConversation

	// pending counts commands without their tagged reply.
	pending int
	from    imapFrame
	to      imapFrame
	// awaits: the client's next octets depend on the server's answer to a
	// synchronising literal of size octets, or to IDLE.
	awaits imapAwait
	size   int64
	// appends: the command in hand is APPEND.
	appends bool
	// idling: the server has said "+" to IDLE; the client's next line is DONE.
	idling bool
}

type imapAwait uint8

const (
	awaitsNothing imapAwait = iota
	awaitsLiteral
	awaitsIdle
)

// An imapFrame is where one direction stands.
type imapFrame struct {
	// literal is how many octets of a literal are still to come.
	literal int64
	// inside a command or response: behind its first line's start.
	inside bool
	quotes imapQuotes
}

// heldTail is how much of an unfinished line is kept back, so that its end can
// be seen whole: a literal's mark is shorter.
const heldTail = 64

func (f *imapFramed) phase() Phase {
	if f.idling || f.pending == 0 && f.awaits == awaitsNothing {
		return LoggedIn
	}
	return Owed
}

// client decides about the client's bytes.
func (f *imapFramed) client(data []byte) Step {
	switch {
	case f.awaits != awaitsNothing:
		return Step{Do: Wait}
	case len(data) == 0:
		return Step{Do: More}
	case f.from.literal > 0:
		return f.from.octets(data)
	case f.idling:
		return f.done(data)
	case f.from.inside:
		return f.clientLine(data, 0)
	}
	return f.clientCommand(data)
}

// octets passes what there is of a literal.
func (s *imapFrame) octets(data []byte) Step {
	n := min(int64(len(data)), s.literal)
	s.literal -= n
	return Step{Take: int(n), Forward: true}
}

// clientCommand decides about a command by its tag and verb.
func (f *imapFramed) clientCommand(data []byte) Step {
	end := bytes.IndexByte(data, '\n')
	if end < 0 && len(data) < MaxLine {
		return Step{Do: More}
	}
	head := data[:min(len(data), MaxLine)]
	if end >= 0 {
		head = data[:min(end, MaxLine)]
	}
	head = bytes.TrimSuffix(head, []byte("\r"))
	tag, rest, _ := bytes.Cut(head, []byte(" "))
	verb, _, _ := bytes.Cut(rest, []byte(" "))
	verb = bytes.ToUpper(verb)
	whole := end >= 0 && end < MaxLine
	if !validIMAPTag(tag) || len(verb) == 0 || len(verb) > 40 || !atomic(verb) {
		return f.local(data, end, whole, "* BAD Not a command.\r\n")
	}
	switch string(verb) {
	case "UNAUTHENTICATE", "COMPRESS", "LOGIN", "AUTHENTICATE", "STARTTLS":
		word := " BAD "
		if string(verb) == "COMPRESS" {
			word = " NO [CANNOT] "
		}
		return f.local(data, end, whole, string(tag)+word+"Not available here.\r\n")
	case "IDLE":
		if f.pending > 0 {
			return Step{Do: Wait}
		}
		if !whole || len(head) != len(tag)+len(" IDLE") {
			return f.local(data, end, whole, string(tag)+" BAD IDLE takes no arguments.\r\n")
		}
		step := f.clientLine(data, 1)
		if step.Forward {
			f.awaits = awaitsIdle
		}
		return step
	}
	if f.pending >= MaxPending {
		return Step{Do: Wait}
	}
	f.appends = string(verb) == "APPEND"
	return f.clientLine(data, 1)
}

// local answers a line ourselves, in its turn. One that announces a literal, or
// that is too long to see, cannot be refused without losing count.
func (f *imapFramed) local(data []byte, end int, whole bool, answer string) Step {
	if !whole {
		return f.violation("client sent a command that cannot be understood")
	}
	text := bytes.TrimSuffix(data[:end], []byte("\r"))
	if _, lit, ok := cutIMAPLiteral(text); lit.present || !ok {
		return f.violation("client sent a literal where none can be")
	}
	if f.pending > 0 {
		return Step{Do: Wait}
	}
	return Step{Take: end + 1, ToClient: []byte(answer)}
}

func (f *imapFramed) violation(why string) Step {
	return Step{ToClient: sayIMAP(SayViolation, ""), Do: End, Why: why}
}

// clientLine passes a line, or what there is of a long one, and looks at its
// end. begins is 1 at a command's first line.
func (f *imapFramed) clientLine(data []byte, begins int) Step {
	end := bytes.IndexByte(data, '\n')
	if end < 0 {
		n := len(data) - heldTail
		if n <= 0 {
			return Step{Do: More}
		}
		if bytes.IndexByte(data[:n], '\r') >= 0 {
			return f.bareNewline()
		}
		f.from.quotes.feed(data[:n])
		f.from.inside = true
		f.pending += begins
		return Step{Take: n, Forward: true}
	}
	if end == 0 || bytes.IndexByte(data[:end+1], '\r') != end-1 {
		return f.bareNewline()
	}
	text := data[:end-1]
	head, lit, ok := cutIMAPLiteral(text)
	q := f.from.quotes
	q.feed(head)
	if !ok || lit.present && (!q.balanced() || isUnaskedBinary(text, head, lit) && !f.takesBinary(head, begins)) {
		return f.violation("client sent a line whose literal cannot be understood")
	}
	if lit.present && lit.sync {
		if f.pending+begins > 1 {
			// The answer to it must not be mistaken for another's.
			return Step{Do: Wait}
		}
		f.awaits = awaitsLiteral
		f.size = lit.size
	} else {
		f.from.literal = lit.size
	}
	f.pending += begins
	f.from.inside = lit.present
	f.from.quotes = imapQuotes{}
	return Step{Take: end + 1, Forward: true}
}

// isUnaskedBinary tells whether a literal is ~{n+}, whose octets are on their
// way. To a server that looks for none in its place it is a word like another
// (Cyrus selects a mailbox of that name), and the octets are commands.
func isUnaskedBinary(text, head []byte, lit imapLiteral) bool {
	return !lit.sync && text[len(head)] == '~'
}

// takesBinary tells whether it may stand behind head, where begins is 1 if that
// has a command's beginning: behind APPEND's mailbox (RFC 3516).
func (f *imapFramed) takesBinary(head []byte, begins int) bool {
	return f.appends && (begins == 0 || len(bytes.Fields(head)) > 2)
}

// bareNewline ends a dialogue whose lines the server might split in another
// way.
func (f *imapFramed) bareNewline() Step {
	step := f.violation("client sent a bare CR or LF in a command")
	step.Events = []Event{{Kind: BareNewline}}
	return step
}

// done takes the line that ends IDLE (RFC 2177).
func (f *imapFramed) done(data []byte) Step {
	const done = "DONE\r\n"
	n := min(len(data), len(done))
	if !bytes.EqualFold(data[:n], []byte(done[:n])) {
		return f.violation("client ended IDLE with something else than DONE")
	}
	if n < len(done) {
		return Step{Do: More}
	}
	f.idling = false
	return Step{Take: n, Forward: true}
}

// server decides about the server's bytes.
func (f *imapFramed) server(data []byte) Step {
	if len(data) == 0 {
		return Step{Do: More}
	}
	if f.to.literal > 0 {
		return f.to.octets(data)
	}
	end := bytes.IndexByte(data, '\n')
	if end < 0 && !f.to.inside && len(data) < MaxLine {
		return Step{Do: More}
	}
	if end < 0 {
		n := len(data) - heldTail
		if n <= 0 {
			return Step{Do: More}
		}
		if !f.to.inside && !bytes.HasPrefix(data, []byte("* ")) {
			return Step{ToClient: sayIMAP(SayNoServer, ""), Do: End, Why: "server sent too long a line"}
		}
		f.to.inside = true
		return Step{Take: n, Forward: true}
	}
	line := data[:end+1]
	if f.to.inside {
		return f.serverData(line)
	}
	switch {
	case line[0] == '+':
		f.continued()
	case bytes.HasPrefix(line, []byte("* ")):
		switch parseIMAPReply(line[:min(len(line), 100)]).code {
		case "OK", "NO", "BAD", "PREAUTH", "CAPABILITY":
		case "BYE":
			f.c.bye = true
		default:
			return f.serverData(line)
		}
	default:
		f.tagged()
	}
	return f.c.release(line)
}

// serverData passes a line of a response that may hold literals.
func (f *imapFramed) serverData(line []byte) Step {
	_, lit, ok := cutIMAPLiteral(bytes.TrimRight(line, "\r\n"))
	f.to.inside = ok && lit.present
	if f.to.inside {
		f.to.literal = lit.size
	}
	return Step{Take: len(line), Forward: true}
}

// continued takes the server's "+".
func (f *imapFramed) continued() {
	switch f.awaits {
	case awaitsLiteral:
		f.from.literal = f.size
	case awaitsIdle:
		f.idling = true
	}
	f.awaits = awaitsNothing
}

// tagged takes a tagged reply. Before a "+" it refuses what was asked, and the
// client goes on with a new command.
func (f *imapFramed) tagged() {
	if f.pending > 0 {
		f.pending--
	}
	if f.awaits == awaitsLiteral {
		f.from = imapFrame{}
	}
	f.awaits = awaitsNothing
	f.idling = false
}
