package guard

import (
	"encoding/binary"
	"math"
	"slices"
	"time"
)

// encode gives the entry's value in the store, nil if there is nothing to keep:
// the version, how many windows, their terms, and then their marks. A
// reservation is kept as if it were charged: after a crash nobody knows.
func (e *entry) encode(now int64) []byte {
	var enc marksEncoder
	var terms []byte
	n := uint64(0)
	for i := range e.windows {
		w := &e.windows[i]
		marks := slices.Clip(w.marks)
		for _, p := range w.pending {
			if p.value == 0 || !w.has(p.value) {
				marks = append(marks, mark{at: now, points: p.points, value: p.value})
			}
		}
		if len(marks) > 0 {
			n++
			terms = w.encodeTerms(terms)
			enc.add(marks, nil)
		}
	}
	if n == 0 {
		return nil
	}
	b := binary.AppendUvarint([]byte{codecVersion}, n)
	return enc.appendTo(append(b, terms...))
}

// flags of a window.
const (
	windowGood = 1 << iota
	windowShare
)

// smallestWindow is the least that a window's terms take.
const smallestWindow = 5

func (w *ruleWindow) encodeTerms(b []byte) []byte {
	flags := byte(0)
	if w.good {
		flags |= windowGood
	}
	if w.share {
		flags |= windowShare
	}
	b = append(appendText(b, w.rule), flags)
	b = binary.AppendUvarint(b, uint64(max(w.limit, 0)))
	b = binary.AppendUvarint(b, uint64(w.period.Milliseconds()))
	return binary.AppendUvarint(b, uint64(max(w.keep, 1)))
}

func (d *decoder) terms() (w ruleWindow) {
	w.rule = d.text(MaxName, plainText)
	flags := d.byte()
	w.good, w.share = flags&windowGood != 0, flags&windowShare != 0
	w.limit = milli(d.upTo(math.MaxInt64))
	w.period = time.Duration(d.upTo(uint64(math.MaxInt64/time.Millisecond))) * time.Millisecond
	w.keep = int(d.upTo(math.MaxInt32))
	d.bad = d.bad || flags > windowGood|windowShare || w.keep == 0
	return w
}

// decodeEntry reads the windows of an entry. Only their terms and marks are
// set.
func decodeEntry(value []byte, share commons) ([]ruleWindow, error) {
	d := decoder{b: value}
	d.version()
	windows := make([]ruleWindow, d.count(smallestWindow))
	for i := range windows {
		windows[i] = d.terms()
	}
	of := d.commons(share)
	for i := range windows {
		var folded []int
		windows[i].marks, folded = d.marks(of)
		d.bad = d.bad || folded != nil
	}
	if d.bad || len(d.b) > 0 {
		return nil, errRecord
	}
	return windows, nil
}
