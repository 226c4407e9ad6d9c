package guard

import (
	"net/netip"
	"strconv"
	"time"

	"mailreeve/protocol"
)

// A trace is an event as a window keeps it: a third of the size. What most
// events of an attack have in common they share. Its time is the mark's.
type trace struct {
	*common
	addr      netip.Addr
	login     string
	recipient string
	id        string
	conn      uint64
	took      time.Duration
	guess     int32 // 16 bits; -1: none
}

// A common is what events have in common. It is not changed once made.
type common struct {
	kind                                protocol.Kind
	listener, scope, protocol, upstream string
	code, outcome, verdict, rule        string
	familiar                            bool
}

// commons gives equal commons one place. Their number is bounded by what the
// configuration and the servers' replies make of them; should it not be, we
// begin anew.
type commons map[common]*common

const maxCommons = 4096

func (cs commons) share(c common) *common {
	have := cs[c]
	if have == nil {
		if len(cs) >= maxCommons {
			clear(cs)
		}
		have = &c
		if cs != nil {
			cs[c] = have
		}
	}
	return have
}

// trace makes the trace of an event, nil of none.
func (cs commons) trace(ev *Event) *trace {
	if ev == nil {
		return nil
	}
	t := &trace{
		common: cs.share(common{
			kind: ev.Kind, listener: ev.Listener, scope: ev.Scope, protocol: ev.Protocol, upstream: ev.Upstream,
			code: ev.Code, outcome: ev.Outcome, verdict: ev.Verdict, rule: ev.Rule, familiar: ev.Familiar,
		}),
		addr: ev.Addr, login: ev.Login, recipient: ev.Recipient, id: ev.ID, conn: ev.Conn, took: ev.Took.Std(), guess: -1,
	}
	if g, err := strconv.ParseUint(ev.Guess, 16, 16); err == nil {
		t.guess = int32(g)
	}
	return t
}

// event gives the mark's event back, nil if it has none.
func (m *mark) event() *Event {
	t := m.trace
	if t == nil {
		return nil
	}
	ev := &Event{
		ID: t.id, Time: time.UnixMilli(m.at), Kind: t.kind, Addr: t.addr, Listener: t.listener, Scope: t.scope,
		Protocol: t.protocol, Upstream: t.upstream, Conn: t.conn, Login: t.login, Recipient: t.recipient, Code: t.code,
		Familiar: t.familiar, Outcome: t.outcome, Verdict: t.verdict, Rule: t.rule, Took: Duration(t.took),
	}
	if t.guess >= 0 {
		ev.Guess = printGuess(uint16(t.guess))
	}
	return ev
}
