package guard

import (
	"encoding/binary"
	"math"
	"net/netip"
	"slices"
	"time"
)

// Marks are in the store twice: as the counters, and as the evidence of a ban.
// What many have in common is written once, before them.

// flags of a mark.
const (
	markHard = 1 << iota
	markValue
	markEvent
	markFolded // more events are summed up in it
	markLogin
	markRecipient
	markID
	markGuess
)

// smallestMark is the least that a mark takes: flags, time, points.
const smallestMark = 3

// A marksEncoder collects marks, and what they have in common.
type marksEncoder struct {
	commons []*common
	body    []byte
}

// add appends a list of marks. folded gives how many events each sums up; it
// may be nil.
func (e *marksEncoder) add(marks []mark, folded []int) {
	e.body = binary.AppendUvarint(e.body, uint64(len(marks)))
	before := int64(0)
	for i := range marks {
		m, n := &marks[i], 0
		if folded != nil {
			n = folded[i]
		}
		e.body = append(e.body, m.flags(n))
		e.body = binary.AppendVarint(e.body, m.at-before)
		e.body = binary.AppendVarint(e.body, int64(m.points))
		before = m.at
		if m.value != 0 {
			e.body = binary.BigEndian.AppendUint32(e.body, m.value)
		}
		if n > 0 {
			e.body = binary.AppendUvarint(e.body, uint64(n))
		}
		if m.trace != nil {
			e.addTrace(m.trace)
		}
	}
}

func (m *mark) flags(folded int) (flags byte) {
	set := func(bit byte, has bool) {
		if has {
			flags |= bit
		}
	}
	set(markHard, m.hard)
	set(markValue, m.value != 0)
	set(markFolded, folded > 0)
	if t := m.trace; t != nil {
		set(markEvent, true)
		set(markLogin, t.login != "")
		set(markRecipient, t.recipient != "")
		set(markID, t.id != "")
		set(markGuess, t.guess >= 0)
	}
	return flags
}

func (e *marksEncoder) addTrace(t *trace) {
	i := slices.Index(e.commons, t.common)
	if i < 0 {
		i = len(e.commons)
		e.commons = append(e.commons, t.common)
	}
	b := binary.AppendUvarint(e.body, uint64(i))
	addr := t.addr.AsSlice()
	b = append(append(b, byte(len(addr))), addr...)
	b = binary.AppendUvarint(b, t.conn)
	b = binary.AppendUvarint(b, uint64(max(t.took, 0)))
	for _, text := range []string{t.login, t.recipient, t.id} {
		if text != "" {
			b = appendText(b, text)
		}
	}
	if t.guess >= 0 {
		b = binary.BigEndian.AppendUint16(b, uint16(t.guess))
	}
	e.body = b
}

// texts of a common, in the order in which they are stored.
func (c *common) texts() [9]*string {
	return [...]*string{(*string)(&c.kind), &c.listener, &c.scope, &c.protocol, &c.upstream, &c.code, &c.outcome, &c.verdict, &c.rule}
}

// smallestCommon is the least that one takes: the lengths of its texts, and
// whether it is familiar.
const smallestCommon = 10

// appendTo appends what the marks have in common, then what was added.
func (e *marksEncoder) appendTo(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(e.commons)))
	for _, c := range e.commons {
		for _, text := range c.texts() {
			b = appendText(b, *text)
		}
		familiar := byte(0)
		if c.familiar {
			familiar = 1
		}
		b = append(b, familiar)
	}
	return append(b, e.body...)
}

// maxEventText bounds a text of an event, in bytes. The longest are recipients
// and servers' codes, which the readers of the protocols bound far below.
const maxEventText = 16 << 10

// commons reads what marks have in common.
func (d *decoder) commons(share commons) []*common {
	n := d.count(smallestCommon)
	list := make([]*common, 0, n)
	for range n {
		var c common
		for _, text := range c.texts() {
			*text = d.text(maxEventText, plainText)
		}
		familiar := d.byte()
		if d.bad = d.bad || familiar > 1; d.bad {
			return nil
		}
		c.familiar = familiar == 1
		list = append(list, share.share(c))
	}
	return list
}

// marks reads a list of marks, and how many events each sums up; folded is nil
// if none does.
func (d *decoder) marks(of []*common) (marks []mark, folded []int) {
	n := d.count(smallestMark)
	if n == 0 {
		return nil, nil
	}
	marks = make([]mark, n)
	at := int64(0)
	for i := range marks {
		m, flags := &marks[i], d.byte()
		at += d.moment()
		m.at, m.points, m.hard = at, milli(d.varint()), flags&markHard != 0
		if flags&markValue != 0 {
			if b := d.take(4); b != nil {
				m.value = binary.BigEndian.Uint32(b)
			}
			d.bad = d.bad || m.value == 0
		}
		if flags&markFolded != 0 {
			if folded == nil {
				folded = make([]int, n)
			}
			folded[i] = int(d.upTo(math.MaxInt32))
			d.bad = d.bad || folded[i] == 0
		}
		if flags&markEvent != 0 {
			m.trace = d.trace(flags, of)
		} else if flags&^(markHard|markValue|markFolded) != 0 {
			d.bad = true
		}
		if d.bad || !saneMoment(at) {
			d.bad = true
			return nil, nil
		}
	}
	return marks, folded
}

func (d *decoder) trace(flags byte, of []*common) *trace {
	t := &trace{guess: -1}
	if i := d.uvarint(); i < uint64(len(of)) {
		t.common = of[i]
	} else {
		d.bad = true
		return nil
	}
	if addr := d.take(uint64(d.byte())); len(addr) > 0 {
		a, ok := netip.AddrFromSlice(addr)
		t.addr, d.bad = a, d.bad || !ok
	}
	t.conn = d.uvarint()
	t.took = time.Duration(d.upTo(math.MaxInt64))
	for _, text := range []struct {
		flag byte
		into *string
	}{{markLogin, &t.login}, {markRecipient, &t.recipient}, {markID, &t.id}} {
		if flags&text.flag != 0 {
			*text.into = d.text(maxEventText, plainText)
			d.bad = d.bad || *text.into == ""
		}
	}
	if flags&markGuess != 0 {
		if b := d.take(2); b != nil {
			t.guess = int32(binary.BigEndian.Uint16(b))
		}
	}
	return t
}
