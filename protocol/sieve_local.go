package protocol

import (
	"bytes"
	"strconv"
	"strings"
)

// What we say ourselves in ManageSieve.

// sieveWords say what a login needs. TRYLATER keeps clients from asking for a
// new password.
var sieveWords = &loginWords{
	protocol:    "managesieve",
	verb:        "AUTHENTICATE",
	refuse:      refuseSieve,
	garbled:     func(string) string { return "NO \"Invalid response to the mechanism.\"\r\n" },
	noMechanism: func(string) string { return "NO \"Unsupported authentication mechanism.\"\r\n" },
	command:     func(_, mech string) []byte { return []byte("AUTHENTICATE \"" + mech + "\"\r\n") },
	challenge:   func(base64 string) []byte { return []byte("\"" + base64 + "\"\r\n") },
	response:    sieveResponseLine,
	abort:       "\"*\"\r\n",
	gone:        saySieve(SayNoServer, ""),
	tooMany:     []byte("BYE \"Too many refused logins.\"\r\n"),
}

// sieveResponseLine is a response of the client's. A quoted string has
// its bound.
func sieveResponseLine(base64 []byte) []byte {
	if len(base64) <= maxSieveQuoted {
		return []byte("\"" + string(base64) + "\"\r\n")
	}
	return []byte("{" + strconv.Itoa(len(base64)) + "+}\r\n" + string(base64) + "\r\n")
}

// saySieve composes last sentences.
func saySieve(w Word, host string) []byte {
	return []byte("BYE " + [...]string{
		SayBanned:    `(TRYLATER) "Too many failures from your address, try again later."`,
		SayBusy:      `(TRYLATER) "Too many connections, try again later."`,
		SayNoServer:  `(TRYLATER) "The mail server cannot be reached, try again later."`,
		SayTimeout:   `"Disconnected for inactivity."`,
		SayShutdown:  `(TRYLATER) "Restarting, try again at once."`,
		SayViolation: `"Protocol violation."`,
	}[w] + "\r\n")
}

// refuseSieve words a verdict.
func refuseSieve(v Verdict, _ string) Step {
	const later = " (TRYLATER) \"Temporary authentication failure, try again later.\"\r\n"
	switch v {
	case Repeated:
		return Step{ToClient: []byte("NO \"Authentication failed.\"\r\n")}
	case Guarded:
		return Step{ToClient: []byte("BYE" + later), Do: End, Why: "login is guarded"}
	case Banned:
		return Step{ToClient: saySieve(SayBanned, ""), Do: End, Why: "banned"}
	}
	return Step{ToClient: []byte("NO" + later)}
}

// refuseAuth answers a login that we take from nobody here.
func (c *sieveConversation) refuseAuth(size int) Step {
	if c.set.NoAuth {
		return Step{
			Take:     size,
			ToClient: []byte("NO \"No logins here.\"\r\n"),
			Events:   []Event{{Kind: AuthNotOffered}},
		}
	}
	return Step{
		Take:     size,
		ToClient: []byte("NO (ENCRYPT-NEEDED) \"Log in over TLS only.\"\r\n"),
		Events:   []Event{{Kind: PlaintextAuth}},
	}
}

// maxSieveErrors is how many errors of ours a client gets.
const maxSieveErrors = 10

// bad answers a command with an error. It never reaches the server.
func (c *sieveConversation) bad(size int, text string) Step {
	c.errors++
	step := Step{
		Take:     size,
		ToClient: []byte("NO \"" + text + "\"\r\n"),
		Events:   []Event{{Kind: BadCommand}},
	}
	if c.errors >= maxSieveErrors {
		step.ToClient = append(step.ToClient, "BYE \"Too many invalid commands.\"\r\n"...)
		step.Events = append(step.Events, Event{Kind: TooManyErrors})
		step.Do = End
		step.Why = "too many invalid commands"
	}
	return step
}

// noop answers NOOP, with the tag it may carry (RFC 5804 section 2.13), in the
// words that Pigeonhole has for each.
func (c *sieveConversation) noop(cmd *sieveCommand) Step {
	reply := `OK "NOOP completed."`
	if len(cmd.args) > 0 && len(cmd.args[0]) <= maxSieveQuoted {
		reply = "OK (TAG " + sieveQuote(cmd.args[0]) + `) "Done"`
	}
	return Step{Take: cmd.size, ToClient: []byte(reply + "\r\n")}
}

// capabilities composes the list as we tell it ourselves.
func (c *sieveConversation) capabilities(text string) []byte {
	lines := c.set.Offer.Capabilities
	if len(lines) == 0 {
		lines = []string{`"IMPLEMENTATION" "mailreeve"`, `"SIEVE" ""`, `"SASL" "PLAIN"`, `"VERSION" "1.0"`}
	}
	var b bytes.Buffer
	for _, line := range lines {
		if line, keep := c.editCapability(line); keep {
			b.WriteString(line + "\r\n")
		}
	}
	if c.offersStartTLS() {
		b.WriteString("\"STARTTLS\"\r\n")
	}
	b.WriteString("OK " + sieveQuote([]byte(text)) + "\r\n")
	return b.Bytes()
}

// editCapability gives a line of the list, without its end, as the client shall
// see it, if at all: STARTTLS is ours; SASL says what we would do with a login;
// UNAUTHENTICATE and XCLIENT are not to be had.
func (c *sieveConversation) editCapability(line string) (string, bool) {
	word, rest, _ := strings.Cut(strings.ToUpper(line), " ")
	switch word {
	case `"STARTTLS"`, `"UNAUTHENTICATE"`, `"XCLIENT"`:
		return "", false
	case `"SASL"`:
		if c.loggedIn {
			return line, true
		}
		if !c.mayAuth() {
			return `"SASL" ""`, true
		}
		if !c.set.Soft || c.server == serverOpen {
			return line, true
		}
		var keep []string
		for _, mech := range strings.Fields(strings.Trim(rest, `"`)) {
			if softMechanism(mech) {
				keep = append(keep, mech)
			}
		}
		return `"SASL" "` + strings.Join(keep, " ") + `"`, true
	}
	return line, true
}
