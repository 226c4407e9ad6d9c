package protocol

import (
	"bytes"
	"strconv"
)

// message passes what follows DATA, as far as it can be judged.
func (c *smtpConversation) message(data []byte) Step {
	n, v := c.scanner.scan(data)
	step := Step{Take: n, Forward: n > 0}
	switch v {
	case dataEnd:
		c.inData = false
		c.pending = append(c.pending, smtpCommand{verb: cmdMessage})
	case dataUnsure:
		if n == 0 {
			step.Do = More
		}
	case dataForged:
		// The final dot is never sent: the server drops what it has.
		return Step{
			Events: c.event(BareNewline, ""), Do: End, Why: "bare CR or LF around a dot",
			ToClient: []byte("550 5.5.2 Error: bare <CR> or <LF> around a dot\r\n"),
		}
	}
	return step
}

// bdat takes a chunk's size (RFC 3030 section 2). It goes on only where the
// server is sure to take the octets for what they are, which it is told once all
// earlier commands are answered: to one that has not offered CHUNKING on this
// connection (Exim behind HELO) they are commands, and to some wherever a chunk
// has no place. Elsewhere the chunk is swallowed.
func (c *smtpConversation) bdat(cmd smtpCommand, size int) Step {
	if len(c.pending) > 0 {
		return Step{Do: Wait}
	}
	octets, last, ok := bdatSize(cmd.args)
	if !ok {
		return Step{
			Take: size, Do: End, Why: "BDAT without a size that can be read", Events: c.noise(BadCommand, ""),
			ToClient: formatLine("501 5.5.4 %s Syntax: BDAT size [LAST]", c.host()),
		}
	}
	refusal := ""
	switch {
	case c.link == linkNone && c.setup.Soft:
		refusal = "530 5.7.0 Authentication required"
	case c.link == linkNone:
		refusal = "503 5.5.1 Error: need MAIL command"
	case !c.offersChunking:
		refusal = "502 5.5.1 Error: BDAT not implemented"
	case len(c.rcpts) == 0:
		refusal = "503 5.5.1 Error: no recipient was accepted"
	}
	if refusal == "" {
		cmd.verb, cmd.octets = cmdBdat, octets
		if last {
			cmd.verb = cmdBdatLast
		}
		c.octets = octets
		return c.forward(cmd, size)
	}
	if octets == 0 {
		return c.local(size, refusal, "")
	}
	c.octets, c.swallow = octets, []byte(refusal+"\r\n")
	return Step{Take: size}
}

// bdatSize reads BDAT's parameters strictly: digits, then LAST or nothing. Exim
// reads the digits into 32 bits, go-smtp refuses what is more: no chunk is that
// large.
func bdatSize(args []byte) (octets uint64, last, ok bool) {
	digits, rest, found := bytes.Cut(args, []byte{' '})
	if found {
		if !bytes.EqualFold(bytes.TrimLeft(rest, " "), []byte("LAST")) {
			return 0, false, false
		}
		last = true
	}
	if !areDigits(digits) {
		return 0, false, false
	}
	octets, err := strconv.ParseUint(string(digits), 10, 31)
	return octets, last, err == nil
}

// betweenChunks tells whether a command has no place behind a chunk that was
// not the last. Exim then takes nothing but RSET, not even another chunk.
func (c *smtpConversation) betweenChunks(v smtpVerb) bool {
	switch v {
	case cmdBdat, cmdRset, cmdNoop, cmdQuit:
		return false
	}
	return c.chunks
}

// chunk passes, or swallows, the octets of a chunk.
func (c *smtpConversation) chunk(data []byte) Step {
	n := len(data)
	if uint64(n) > c.octets {
		n = int(c.octets)
	}
	c.octets -= uint64(n)
	if c.swallow == nil {
		return Step{Take: n, Forward: true}
	}
	step := Step{Take: n}
	if c.octets == 0 {
		step.ToClient, c.swallow = c.swallow, nil
	}
	return step
}
