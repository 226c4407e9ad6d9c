package guard

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
)

// The client library believes the server: it makes room for as much as an answer
// says it has, and panics at a negative length and at an answer that nobody asked
// for. A panic ends the program, so whatever answers on the store's port could
// stop the mail. Hence each connection is watched below the library, which gets
// nothing that is not well formed, bounded and asked for.
//
// What it gives up: Sentinels are believed in what they tell unasked, and the
// members of a Cluster in who they are.

const (
	// maxAnswer bounds an answer, in bytes, and maxElements how many elements it
	// has in all its lists: an index of 4 million bans has 65,000.
	maxAnswer   = 64 << 20
	maxElements = 1 << 20
	// maxNested bounds lists in lists, and maxAnswerLine a line, in bytes.
	maxNested     = 16
	maxAnswerLine = 64 << 10
)

var (
	errAnswer  = errors.New("the store's answer is not in its protocol, or beyond all bounds; is it Valkey or Redis?")
	errUnasked = errors.New("the store answers what it was not asked; is it Valkey or Redis?")
)

// dialStore makes the client's connections. unasked allows what a server tells
// without being asked.
func dialStore(unasked bool) func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error) {
	return func(ctx context.Context, address string, d *net.Dialer, t *tls.Config) (net.Conn, error) {
		var c net.Conn
		var err error
		if t != nil {
			c, err = (&tls.Dialer{NetDialer: d, Config: t}).DialContext(ctx, "tcp", address)
		} else {
			c, err = d.DialContext(ctx, "tcp", address)
		}
		if err != nil {
			return nil, err
		}
		return &boundedStore{Conn: c, answers: respWatch{unasked: unasked}}, nil
	}
}

// A boundedStore is a connection to the store.
type boundedStore struct {
	net.Conn
	questions respWatch // the writer's
	answers   respWatch // the reader's
	asked     atomic.Int64
}

func (b *boundedStore) Write(p []byte) (int, error) {
	n, err := b.questions.watch(p)
	if err != nil {
		return 0, fmt.Errorf("what is asked: %w", err) // the library's fault
	}
	b.asked.Add(n)
	return b.Conn.Write(p)
}

// Read gives nothing of what has something wrong in it: the library would act on
// the beginning.
func (b *boundedStore) Read(p []byte) (int, error) {
	n, err := b.Conn.Read(p)
	answered, bad := b.answers.watch(p[:n])
	if bad != nil {
		return 0, bad
	}
	if b.asked.Add(-answered) < 0 {
		return 0, errUnasked
	}
	return n, err
}

// A respWatch follows one direction of a connection in RESP, the protocol of
// Valkey and Redis (https://valkey.io/topics/protocol/).
type respWatch struct {
	unasked bool // pushes may come

	line []byte // of the element that is coming, without its end
	skip int64  // octets to come of a string and of its line end
	// open are how many elements are to come in each of the lists that have
	// begun, the innermost last.
	open []int64
	push bool // the message is one
	// size and elements are of the message so far.
	size, elements int64
}

// watch tells how many messages end in what comes, but for pushes.
func (w *respWatch) watch(p []byte) (ended int64, err error) {
	for len(p) > 0 {
		if w.skip > 0 {
			n := min(w.skip, int64(len(p)))
			w.skip -= n
			p = p[n:]
		} else {
			end := bytes.IndexByte(p, '\n') + 1
			part := p[:end]
			if end == 0 {
				part = p
			}
			if w.line = append(w.line, part...); len(w.line) > maxAnswerLine {
				return ended, errAnswer
			}
			p = p[len(part):]
			if end == 0 {
				return ended, nil
			}
			if err := w.element(); err != nil {
				return ended, err
			}
			w.line = w.line[:0]
		}
		if w.skip == 0 && w.closed() {
			if !w.push {
				ended++
			}
			w.push, w.size, w.elements = false, 0, 0
		}
	}
	return ended, nil
}

// element takes the line that an element begins with.
func (w *respWatch) element() error {
	text, ok := bytes.CutSuffix(w.line, []byte("\r\n"))
	if !ok || len(text) == 0 {
		return errAnswer
	}
	kind, text := text[0], text[1:]
	w.size += int64(len(w.line))
	switch kind {
	case '+', '-', ',', '(', ':':
	case '#':
		ok = len(text) == 1
	case '_':
		ok = len(text) == 0
	case '$', '!', '=':
		n, sound := respNumber(text)
		if w.skip, ok = n+2, sound && n >= 0; !ok {
			w.skip, ok = 0, string(text) == "-1" // RESP2's null
		}
		w.size += w.skip
	case '*', '%', '~', '>':
		ok = w.list(kind, text)
	default:
		ok = false // strings in chunks among them, which no server sends
	}
	if !ok || w.size > maxAnswer {
		return errAnswer
	}
	return nil
}

// list takes the beginning of a list.
func (w *respWatch) list(kind byte, text []byte) bool {
	if kind == '>' {
		if !w.unasked || len(w.open) > 0 {
			return false
		}
		w.push = true
	}
	n, ok := respNumber(text)
	if !ok || n < 0 {
		return string(text) == "-1" && kind == '*' // RESP2's null
	}
	if kind == '%' {
		n *= 2
	}
	if w.elements += n; w.elements > maxElements || len(w.open) == maxNested {
		return false
	}
	if n > 0 {
		w.open = append(w.open, n+1) // with the list itself, which closed counts
	}
	return true
}

// closed counts the element that has just come, and tells whether the message
// has ended with it.
func (w *respWatch) closed() bool {
	for len(w.open) > 0 {
		last := len(w.open) - 1
		if w.open[last]--; w.open[last] > 0 {
			return false
		}
		w.open = w.open[:last]
	}
	return true
}

// respNumber reads a number of the protocol, of so few digits that nothing that
// is reckoned with it overflows.
func respNumber(text []byte) (n int64, ok bool) {
	digits := bytes.TrimPrefix(text, []byte("-"))
	if len(digits) == 0 || len(digits) > 18 {
		return 0, false
	}
	for _, d := range digits {
		if d < '0' || d > '9' {
			return 0, false
		}
		n = 10*n + int64(d-'0')
	}
	if len(digits) < len(text) {
		n = -n
	}
	return n, true
}
