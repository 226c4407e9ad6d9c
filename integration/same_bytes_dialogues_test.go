package integration

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"mailreeve/integration/testbed"
)

// smtpReplies reads n replies.
func smtpReplies(n int) func(*testbed.Conn) (string, error) {
	return func(conn *testbed.Conn) (string, error) {
		var said strings.Builder
		for range n {
			reply, err := lines(conn, func(line string) bool { return len(line) < 4 || line[3] != '-' })
			said.WriteString(reply)
			if err != nil {
				return said.String(), err
			}
		}
		return said.String(), nil
	}
}

// smtpDialogue has no MAIL before the login, which is mailreeve's to refuse.
func smtpDialogue(r *rand.Rand, u testbed.User) []step {
	say := func(command string) step { return step{command + "\r\n", smtpReplies(1)} }
	steps := []step{say("EHLO client.example.test")}
	for range r.IntN(4) {
		steps = append(steps, pick(r, say("NOOP"), say("RSET"), say("VRFY postmaster"), say("HELP"), say("XYZZY 1"),
			say("AUTH FOO"), say("AUTH PLAIN "+testbed.Plain(u.Login, wrongPassword(r)))))
		steps = append(steps, say("RSET"))
	}
	if r.IntN(2) == 0 {
		steps = append(steps, say("AUTH PLAIN"), say("*"))
	}
	if r.IntN(2) == 0 {
		steps = append(steps, say("AUTH PLAIN "+testbed.Plain(u.Login, u.Password)))
	} else {
		steps = append(steps, say("AUTH PLAIN"), say(testbed.Plain(u.Login, u.Password)))
	}
	for range r.IntN(4) {
		steps = append(steps, smtpMessage(r, say)...)
		steps = append(steps, pick(r, say("NOOP"), say("RSET"), say("EHLO client.example.test"), say("ETRN x")))
	}
	return append(steps, say("QUIT"))
}

// smtpMessage is a transaction: its envelope command by command or all at
// once, its body by DATA or in chunks.
func smtpMessage(r *rand.Rand, say func(string) step) []step {
	envelope := []string{pick(r, "MAIL FROM:<a@example.org>", "mail from:<a@example.org> size=1000",
		"MAIL FROM:<> BODY=8BITMIME", "MAIL FROM:<a@example.org> SIZE=999999999", "MAIL FROM:broken <")}
	for range r.IntN(5) {
		envelope = append(envelope, pick(r, "RCPT TO:<alice@example.test>", "RCPT TO:<nobody@example.test>",
			"RCPT TO:<x@example.com>", "RCPT TO:<greylisted@example.test>", "RCPT TO:<listed@example.test>", "RCPT TO:<"))
	}
	envelope = append(envelope, "RCPT TO:<bob@example.test>")
	body := randomText(r)
	if strings.Contains(envelope[0], "999999999") || strings.Contains(envelope[0], "broken") {
		return []step{say(envelope[0]), say("RSET")} // no 354 will come
	}
	if r.IntN(3) == 0 {
		half := len(body) / 2
		return []step{
			{strings.Join(envelope, "\r\n") + "\r\n", smtpReplies(len(envelope))},
			{fmt.Sprintf("BDAT %d\r\n%s", half, body[:half]), smtpReplies(1)},
			{fmt.Sprintf("BDAT %d LAST\r\n%s", len(body)-half, body[half:]), smtpReplies(1)},
		}
	}
	var steps []step
	if r.IntN(2) == 0 {
		envelope = append(envelope, "DATA")
		steps = append(steps, step{strings.Join(envelope, "\r\n") + "\r\n", smtpReplies(len(envelope))})
	} else {
		for _, command := range append(envelope, "DATA") {
			steps = append(steps, say(command))
		}
	}
	return append(steps, step{body + ".\r\n", smtpReplies(1)})
}

// imapTagged reads up to the result of a tag.
func imapTagged(tag string) func(*testbed.Conn) (string, error) {
	return func(conn *testbed.Conn) (string, error) {
		return lines(conn, func(line string) bool { return strings.HasPrefix(line, tag+" ") })
	}
}

// oneLine reads a line.
func oneLine(conn *testbed.Conn) (string, error) {
	return lines(conn, func(string) bool { return true })
}

func imapDialogue(r *rand.Rand, u testbed.User) []step {
	n := 0
	say := func(command string) step {
		n++
		tag := fmt.Sprintf("%s%d", pick(r, "a", "X.", "NO", "OK"), n)
		return step{tag + " " + command + "\r\n", imapTagged(tag)}
	}
	steps := []step{say("CAPABILITY")}
	for range r.IntN(3) {
		steps = append(steps, pick(r, say("NOOP"), say("CAPABILITY"), say("LOGIN "+u.Login+" "+wrongPassword(r)),
			say(`ID ("name" "test")`), say("AUTHENTICATE PLAIN "+testbed.Plain(u.Login, wrongPassword(r))), say("SELECT INBOX")))
	}
	switch r.IntN(4) {
	case 0:
		steps = append(steps, say(fmt.Sprintf("LOGIN %q %q", u.Login, u.Password)))
	case 1:
		steps = append(steps, say(fmt.Sprintf("LOGIN {%d+}\r\n%s {%d+}\r\n%s", len(u.Login), u.Login, len(u.Password), u.Password)))
	case 2:
		steps = append(steps, say("AUTHENTICATE PLAIN "+testbed.Plain(u.Login, u.Password)))
	case 3:
		last := say(testbed.Plain(u.Login, u.Password))
		tag, credential, _ := strings.Cut(last.send, " ")
		steps = append(steps, step{tag + " AUTHENTICATE PLAIN\r\n", oneLine}, step{credential, last.read})
	}
	steps = append(steps, say("SELECT INBOX"))
	for range r.IntN(8) {
		steps = append(steps, imapStep(r, say)...)
	}
	// Several at once; all of them are answered before the last.
	last := say("LOGOUT")
	return append(steps, step{say("NOOP").send + say("FETCH 1:* (UID BODY.PEEK[])").send + last.send, last.read})
}

func imapStep(r *rand.Rand, say func(string) step) []step {
	text := randomText(r)
	switch r.IntN(5) {
	case 0:
		return []step{say(fmt.Sprintf("APPEND INBOX {%d+}\r\n%s", len(text), text))}
	case 1:
		last := say(fmt.Sprintf("APPEND INBOX {%d}\r\n%s", len(text), text))
		command, _, _ := strings.Cut(last.send, "\r\n")
		return []step{{command + "\r\n", oneLine}, {text + "\r\n", last.read}}
	case 2:
		last := say("IDLE")
		return []step{{last.send, oneLine}, {"DONE\r\n", last.read}}
	}
	return []step{pick(r, say("NOOP"), say("FETCH 1:* (FLAGS RFC822.SIZE)"), say("FETCH 1 BODY[]"), say(`STORE 1 +FLAGS (\Deleted)`),
		say("EXPUNGE"), say("SEARCH ALL"), say(`LIST "" "*"`), say("STATUS INBOX (MESSAGES)"), say("XYZZY"),
		say("UNAUTHENTICATE"), say("LOGIN a b"), say("CAPABILITY"))}
}

func pop3Dialogue(r *rand.Rand, u testbed.User) []step {
	say := func(command string) step { return step{command + "\r\n", oneLine} }
	many := func(command string) step {
		return step{command + "\r\n", func(conn *testbed.Conn) (string, error) {
			first, err := oneLine(conn)
			if err != nil || !strings.HasPrefix(first, "+OK") {
				return first, err
			}
			rest, err := lines(conn, func(line string) bool { return line == "." })
			return first + rest, err
		}}
	}
	steps := []step{many("CAPA")}
	for range r.IntN(3) {
		steps = append(steps, pick(r, []step{many("CAPA")}, []step{say("USER " + u.Login), say("PASS " + wrongPassword(r))},
			[]step{say("AUTH PLAIN " + testbed.Plain(u.Login, wrongPassword(r)))})...)
	}
	switch r.IntN(3) {
	case 0:
		steps = append(steps, say("USER "+u.Login), say("PASS "+u.Password))
	case 1:
		steps = append(steps, say("AUTH PLAIN "+testbed.Plain(u.Login, u.Password)))
	case 2:
		steps = append(steps, say("AUTH PLAIN"), say(testbed.Plain(u.Login, u.Password)))
	}
	for range r.IntN(6) {
		steps = append(steps, pick(r, say("STAT"), many("LIST"), many("UIDL"), many("RETR 1"), many("TOP 1 1"),
			say("DELE 1"), say("RSET"), say("NOOP"), say("LIST 1"), say("RETR 999"), say("XYZZY")))
	}
	return append(steps, step{"NOOP\r\nSTAT\r\nQUIT\r\n", oneLine})
}

// sieveResult reads up to OK, NO or BYE. Scripts that come down must not have
// lines like these.
func sieveResult(conn *testbed.Conn) (string, error) {
	return lines(conn, func(line string) bool {
		word, _, _ := strings.Cut(line, " ")
		return word == "OK" || word == "NO" || word == "BYE"
	})
}

func sieveDialogue(r *rand.Rand, u testbed.User) []step {
	say := func(command string) step { return step{command + "\r\n", sieveResult} }
	steps := []step{say("CAPABILITY")}
	for range r.IntN(3) {
		steps = append(steps, pick(r, say("CAPABILITY"), say(`NOOP "a tag"`),
			say(fmt.Sprintf("AUTHENTICATE \"PLAIN\" %q", testbed.Plain(u.Login, wrongPassword(r))))))
	}
	credential := testbed.Plain(u.Login, u.Password)
	steps = append(steps, say(pick(r, fmt.Sprintf("AUTHENTICATE \"PLAIN\" %q", credential),
		fmt.Sprintf("AUTHENTICATE \"PLAIN\" {%d+}\r\n%s", len(credential), credential))))
	for range r.IntN(8) {
		script := pick(r, "keep;\r\n", "# a comment\r\ndiscard;\r\n", "not a script", "# \"quoted\" {5+}\r\nstop;\r\n")
		name := pick(r, `"one"`, `"two"`, "{5+}\r\nthree")
		steps = append(steps, pick(r, say("LISTSCRIPTS"), say("GETSCRIPT "+name), say("SETACTIVE "+name), say("DELETESCRIPT "+name),
			say(`SETACTIVE ""`), say("HAVESPACE "+name+" 100"), say(fmt.Sprintf("PUTSCRIPT %s {%d+}\r\n%s", name, len(script), script)),
			say(fmt.Sprintf("CHECKSCRIPT {%d+}\r\n%s", len(script), script)), say(`RENAMESCRIPT "one" "two"`), say("NOOP")))
	}
	return append(steps, say("LOGOUT"))
}
