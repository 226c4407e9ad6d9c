package protocol

import (
	"bytes"
	"encoding/base64"
	"strings"
	"unicode"
	"unicode/utf8"
)

// An exchange follows one SASL exchange (RFC 4422) from the client's side, in
// any protocol: it reads the responses, and tells which of them carries the
// credential, so that this one can be held back. It needs no challenges: what a
// response means follows from the mechanism and from its place.
//
// The place where a credential is held is the first one at which its identities
// are known, so that a refusal costs the server as little as possible: SCRAM's
// client-first message, and for a mechanism that cannot be read the command
// itself. More responses may follow it; they belong to the same attempt.
type exchange struct {
	mech string
	sep  string
	// responses counts what the client has answered so far.
	responses int
	// login is what LOGIN's first response said.
	login string
	cred  *Credential
}

// A saslStep says what a response is.
type saslStep uint8

const (
	// saslPass: nothing to judge; it may go to the server.
	saslPass saslStep = iota
	// saslHold: with this response the credential is complete.
	saslHold
	// saslAbort: the client gives up ("*").
	saslAbort
	// saslGarbled: it is not base64, or not what the mechanism asks for. It
	// must not go to the server, which might read it differently.
	saslGarbled
)

// newExchange starts an exchange. mech is what the client named; masterSep is
// Setup.MasterSeparator.
func newExchange(mech, masterSep string) *exchange {
	return &exchange{mech: strings.ToUpper(mech), sep: masterSep}
}

// begin reads the initial response; has is false if there is none. "=" stands
// for an empty one (RFC 4954 section 4).
func (x *exchange) begin(initial []byte, has bool) saslStep {
	if x.opaque() {
		x.cred = &Credential{Mechanism: x.mech}
		return saslHold
	}
	if !has {
		return saslPass
	}
	if x.mech == "CRAM-MD5" {
		// The server speaks first (RFC 2195): this answers nothing.
		return saslGarbled
	}
	if len(initial) == 1 && initial[0] == '=' {
		initial = nil
	} else if len(initial) == 0 {
		return saslGarbled
	}
	if bytes.Equal(initial, []byte("*")) {
		return saslGarbled
	}
	return x.respond(initial)
}

// respond reads the next response, a line of base64 without its line end.
func (x *exchange) respond(line []byte) saslStep {
	if len(line) == 1 && line[0] == '*' {
		return saslAbort
	}
	text, ok := decodeBase64(line)
	if !ok {
		return saslGarbled
	}
	x.responses++
	if x.cred != nil {
		return x.follow(text)
	}
	switch {
	case x.mech == "PLAIN":
		return x.plain(text)
	case x.mech == "LOGIN":
		return x.loginStep(text)
	case x.mech == "CRAM-MD5":
		return x.cramMD5(text)
	case x.mech == "XOAUTH2":
		return x.xoauth2(text)
	case x.mech == "OAUTHBEARER":
		return x.oauthBearer(text)
	case isScram(x.mech):
		return x.scram(text)
	}
	return saslGarbled
}

// credential gives what saslHold announced.
func (x *exchange) credential() *Credential { return x.cred }

// opaque tells whether nothing of the mechanism can be read: GSSAPI, NTLM,
// EXTERNAL, DIGEST-MD5, whatever is new. Such an attempt begins with the
// command.
func (x *exchange) opaque() bool {
	switch x.mech {
	case "PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2", "OAUTHBEARER":
		return false
	}
	return !isScram(x.mech)
}

func isScram(mech string) bool { return strings.HasPrefix(mech, "SCRAM-") }

// follow judges a response behind the credential: the later messages of SCRAM
// and of opaque mechanisms, and the empty answer to OAuth's error report (RFC
// 7628 section 3.2.3: a single 0x01), which is no new attempt. For the others
// the server asks again where it has nothing to ask, and a second secret must
// not slip through.
func (x *exchange) follow(text []byte) saslStep {
	switch x.mech {
	case "PLAIN", "LOGIN", "CRAM-MD5":
		return saslGarbled
	case "XOAUTH2", "OAUTHBEARER":
		if len(text) == 0 || len(text) == 1 && text[0] == 1 {
			return saslPass
		}
		return saslGarbled
	}
	return saslPass
}

// secretSent tells whether what the client has said is enough to judge.
func (x *exchange) secretSent() bool {
	if isScram(x.mech) {
		return x.responses >= 2
	}
	return x.cred != nil && !x.opaque()
}

// plain reads [authzid] NUL authcid NUL password (RFC 4616).
func (x *exchange) plain(text []byte) saslStep {
	parts := bytes.Split(text, []byte{0})
	if len(parts) != 3 {
		return saslGarbled
	}
	return x.hold(parts[2], string(parts[1]), string(parts[0]))
}

// loginStep reads the user name, then the password.
func (x *exchange) loginStep(text []byte) saslStep {
	if x.responses == 1 {
		x.login = string(text)
		return saslPass
	}
	return x.hold(text, x.login)
}

// cramMD5 reads user SP digest (RFC 2195). The user may hold blanks.
func (x *exchange) cramMD5(text []byte) saslStep {
	at := bytes.LastIndexByte(text, ' ')
	if at < 0 {
		return saslGarbled
	}
	return x.hold(nil, string(text[:at]))
}

// xoauth2 reads user=… 0x01 auth=Bearer … 0x01 0x01.
func (x *exchange) xoauth2(text []byte) saslStep {
	return x.hold(keyed(text, "auth="), string(keyed(text, "user=")))
}

// oauthBearer reads a GS2 header, which may name the user, and then key/value
// pairs (RFC 7628 section 3.1).
func (x *exchange) oauthBearer(text []byte) saslStep {
	head, pairs, _ := bytes.Cut(text, []byte{1})
	authzid, _, ok := gs2(head)
	if !ok {
		return saslGarbled
	}
	return x.hold(keyed(pairs, "auth="), authzid, string(keyed(pairs, "user=")))
}

// scram reads the client-first message (RFC 5802 section 7).
func (x *exchange) scram(text []byte) saslStep {
	authzid, bare, ok := gs2(text)
	if !ok {
		return saslGarbled
	}
	for attr := range bytes.SplitSeq(bare, []byte{','}) {
		if user, ok := bytes.CutPrefix(attr, []byte("n=")); ok {
			return x.hold(nil, unescapeScram(user), authzid)
		}
	}
	return saslGarbled
}

// hold makes the credential. The names are the authentication identity and, if
// there is one, the authorisation identity.
func (x *exchange) hold(secret []byte, names ...string) saslStep {
	x.cred = &Credential{
		Mechanism:  x.mech,
		Identities: identities(x.sep, names...),
		Secret:     bytes.Clone(secret),
	}
	return saslHold
}

// gs2 splits a GS2 header (RFC 5801 section 4) from what follows it: the
// channel binding flag, then a=authzid or nothing.
func gs2(text []byte) (authzid string, rest []byte, ok bool) {
	_, rest, ok = bytes.Cut(text, []byte{','})
	if !ok {
		return "", nil, false
	}
	name, rest, ok := bytes.Cut(rest, []byte{','})
	if !ok {
		return "", nil, false
	}
	if name, found := bytes.CutPrefix(name, []byte("a=")); found {
		return unescapeScram(name), rest, true
	}
	return "", rest, len(name) == 0
}

// unescapeScram undoes the escapes of a saslname (RFC 5802 section 5.1).
func unescapeScram(name []byte) string {
	return strings.NewReplacer("=2C", ",", "=2c", ",", "=3D", "=", "=3d", "=").Replace(string(name))
}

// keyed gives the value behind key among pairs that end in 0x01.
func keyed(pairs []byte, key string) []byte {
	for pair := range bytes.SplitSeq(pairs, []byte{1}) {
		if value, ok := bytes.CutPrefix(pair, []byte(key)); ok {
			return value
		}
	}
	return nil
}

// decodeBase64 decodes a response. Missing padding is forgiven, because some
// servers forgive it; anything else is not.
func decodeBase64(line []byte) ([]byte, bool) {
	enc := base64.StdEncoding
	if len(line)%4 != 0 {
		enc = base64.RawStdEncoding
	}
	if bytes.ContainsAny(line, "\r\n") {
		// The decoder skips them.
		return nil, false
	}
	text := make([]byte, enc.DecodedLen(len(line)))
	n, err := enc.Decode(text, line)
	return text[:n], err == nil
}

// identities lists the names that a credential counts for: as they are, and
// both parts of a master login. Each is sanitised; empty ones and repetitions
// are left out.
func identities(masterSep string, names ...string) []string {
	var list []string
	add := func(name string) {
		name = identity(name)
		if name == "" {
			return
		}
		for _, have := range list {
			if have == name {
				return
			}
		}
		list = append(list, name)
	}
	for _, name := range names {
		add(name)
	}
	if masterSep == "" {
		return list
	}
	for _, name := range names {
		if user, master, ok := strings.Cut(name, masterSep); ok {
			add(user)
			add(master)
		}
	}
	return list
}

// identity strips what a server may overlook in a name, so that each guess
// cannot come under a fresh name: blanks, control and invisible characters.
// The rest is cut to MaxIdentity bytes, at a character's border.
func identity(name string) string {
	name = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return -1
		}
		return r
	}, name)
	if len(name) <= MaxIdentity {
		return name
	}
	cut := MaxIdentity
	for cut > 0 && !utf8.RuneStart(name[cut]) {
		cut--
	}
	return name[:cut]
}
