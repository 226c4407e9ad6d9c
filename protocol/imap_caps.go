package protocol

import (
	"bytes"
	"strings"
)

// Capability lists, and how they are edited: STARTTLS is ours; AUTH= and
// LOGINDISABLED say what we would do with a login; what would make the dialogue
// unreadable is hidden where we have to go on reading it.

// editCapabilities gives the words that the client shall see.
func (c *imapConversation) editCapabilities(words []string) []string {
	mayAuth := c.mayAuth() || c.loggedIn
	framed := !c.blindIsSafe()
	// Under a soft ban we collect the credential, until the server is there.
	soft := c.set.Soft && c.server != serverOpen
	disabled := false
	out := make([]string, 0, len(words)+2)
	for _, w := range words {
		switch up := strings.ToUpper(w); {
		case up == "STARTTLS":
		case up == "LOGINDISABLED":
			disabled = true
			out = append(out, w)
		case strings.HasPrefix(up, "AUTH=") && (!mayAuth || soft && !softMechanism(up[5:])):
		case framed && (up == "UNAUTHENTICATE" || strings.HasPrefix(up, "COMPRESS=")):
		default:
			out = append(out, w)
		}
	}
	if c.offersStartTLS() && !c.loggedIn {
		out = append(out, "STARTTLS")
	}
	if !disabled && !mayAuth {
		out = append(out, "LOGINDISABLED")
	}
	return out
}

// serverCaps are the words the server would use, as far as we know.
func (c *imapConversation) serverCaps() []string {
	if c.caps != nil {
		return c.caps
	}
	return c.set.Offer.Capabilities
}

func (c *imapConversation) offers(word string) bool {
	for _, w := range c.serverCaps() {
		if strings.EqualFold(w, word) {
			return true
		}
	}
	return false
}

// blindIsSafe tells whether the bytes behind a login may pass unseen: the
// server is known, and has no way back to a state in which it takes logins. The
// family that a probe found, or an operator set, goes before the greeting.
func (c *imapConversation) blindIsSafe() bool {
	dovecot := c.dovecot
	if family := c.set.Offer.Family; family != "" {
		dovecot = strings.EqualFold(family, "dovecot")
	}
	return dovecot && !c.offers("UNAUTHENTICATE")
}

// cutCapabilities finds the capability list in a server's line: behind
// "* CAPABILITY ", or in the code of a status response. before and after are
// what surrounds the words.
func cutCapabilities(line []byte) (before, list, after []byte, ok bool) {
	upper := bytes.ToUpper(line[:min(len(line), 200)])
	if bytes.HasPrefix(upper, []byte("* CAPABILITY ")) {
		at := len("* CAPABILITY ")
		end := len(bytes.TrimRight(line, "\r\n"))
		return line[:at], line[at:max(at, end)], line[max(at, end):], true
	}
	_, rest, found := bytes.Cut(upper, []byte(" "))
	if !found {
		return nil, nil, nil, false
	}
	word, rest, found := bytes.Cut(rest, []byte(" "))
	if !found || !bytes.HasPrefix(rest, []byte("[CAPABILITY ")) ||
		string(word) != "OK" && string(word) != "NO" && string(word) != "PREAUTH" {
		return nil, nil, nil, false
	}
	at := len(upper) - len(rest) + len("[CAPABILITY ")
	end := bytes.IndexByte(line[at:], ']')
	if end < 0 {
		return nil, nil, nil, false
	}
	return line[:at], line[at : at+end], line[at+end:], true
}

// learn notes the capabilities in a server's line and gives the line as the
// client shall see it. Without a change it is the line itself.
func (c *imapConversation) learn(line []byte) []byte {
	before, list, after, ok := cutCapabilities(line)
	if !ok {
		return line
	}
	c.caps = strings.Fields(string(list))
	words := strings.Join(c.editCapabilities(c.caps), " ")
	if words == string(bytes.TrimRight(list, " ")) {
		return line
	}
	out := make([]byte, 0, len(line)+32)
	out = append(out, before...)
	out = append(out, words...)
	return append(out, after...)
}
