package guard

import "slices"

// Times in the core are milliseconds since 1970, points are thousandths: both
// add up exactly.

// milli is a number of thousandths of a point.
type milli int64

func toMilli(points float64) milli { return milli(points*1000 + 0.5) }
func (m milli) float() float64     { return float64(m) / 1000 }

// A mark is one scored event in a window.
type mark struct {
	at     int64
	points milli
	// value, unless 0, is counted once: the same value coming again moves its
	// mark to the present.
	value uint32
	// hard marks count whatever the share of good recipients is.
	hard bool
	*trace
}

// A window holds the marks of one rule at one key: an exact sliding window.
// Marks are in the order of time. What is reserved but not settled is pending;
// it has no time yet and does not expire.
type window struct {
	marks   []mark
	sum     milli // of marks
	pending []pendingPoints

	// tripped is set from the moment the limit is reached until the points
	// are cleared or fall below it, so that one crossing is told once.
	tripped bool
}

// pendingPoints are refs reservations of the same value and points.
type pendingPoints struct {
	value  uint32
	points milli
	refs   int
}

// expire drops the marks that are period or more old. A mark from the future,
// which a clock set back can leave, is taken as of now.
func (w *window) expire(now, period int64) {
	n := 0
	for n < len(w.marks) && w.marks[n].at <= now-period {
		w.sum -= w.marks[n].points
		n++
	}
	if n > 0 {
		// The rest moves to the front: the backing array must not grow with
		// what has gone through it.
		w.marks = append(w.marks[:0], w.marks[n:]...)
		clear(w.marks[len(w.marks):cap(w.marks)])
	}
	for i := len(w.marks) - 1; i >= 0 && w.marks[i].at > now; i-- {
		w.marks[i].at = now
	}
}

// forget takes away the marks up to a moment, and gives them and their sum.
func (w *window) forget(upto int64) (marks []mark, sum milli) {
	n := 0
	for n < len(w.marks) && w.marks[n].at <= upto {
		sum += w.marks[n].points
		n++
	}
	marks, rest := slices.Clone(w.marks[:n]), slices.Clone(w.marks[n:])
	w.marks, w.sum, w.tripped = rest, w.sum-sum, false
	return marks, sum
}

// has tells whether a distinct value is among the settled marks.
func (w *window) has(value uint32) bool {
	for i := range w.marks {
		if w.marks[i].value == value {
			return true
		}
	}
	return false
}

// hasSince tells whether a distinct value is among the marks of after a moment.
func (w *window) hasSince(value uint32, after int64) bool {
	for i := len(w.marks) - 1; i >= 0 && w.marks[i].at > after; i-- {
		if w.marks[i].value == value && value != 0 {
			return true
		}
	}
	return false
}

// reserved gives the points that pending reservations would add if all of
// them were charged. Of several with one value the largest counts.
func (w *window) reserved() milli {
	var sum milli
	for i, p := range w.pending {
		switch {
		case p.value == 0:
			sum += p.points * milli(p.refs)
		case !w.has(p.value) && w.largest(i):
			sum += p.points
		}
	}
	return sum
}

// largest tells whether no other pending entry of the same value has more
// points, or as many and comes first.
func (w *window) largest(i int) bool {
	for j, p := range w.pending {
		if p.value == w.pending[i].value && (p.points > w.pending[i].points || p.points == w.pending[i].points && j < i) {
			return false
		}
	}
	return true
}

// room says whether points may be reserved.
type room uint8

const (
	roomYes  room = iota
	roomWait      // full, but only of unsettled reservations
	roomNone      // the settled points have reached the limit
)

// room tells whether another reservation fits. The last one that fits may
// overshoot the limit by its own points, as it would alone. A value that is
// counted or reserved already needs no room of its own.
func (w *window) room(value uint32, limit milli) room {
	if w.sum >= limit {
		return roomNone
	}
	if value != 0 {
		if w.has(value) {
			return roomYes
		}
		for _, p := range w.pending {
			if p.value == value {
				return roomYes
			}
		}
	}
	if w.sum+w.reserved() >= limit {
		return roomWait
	}
	return roomYes
}

// reserve adds a reservation, for which there must be room.
func (w *window) reserve(value uint32, points milli) {
	for i := range w.pending {
		p := &w.pending[i]
		if p.value == value && p.points == points {
			p.refs++
			return
		}
	}
	w.pending = append(w.pending, pendingPoints{value, points, 1})
}

// release takes a reservation back.
func (w *window) release(value uint32, points milli) {
	for i := range w.pending {
		p := &w.pending[i]
		if p.value != value || p.points != points {
			continue
		}
		if p.refs--; p.refs == 0 {
			w.pending = append(w.pending[:i], w.pending[i+1:]...)
		}
		if len(w.pending) == 0 {
			w.pending = nil // most windows rest without
		}
		return
	}
}

// charge adds a mark. keep bounds the marks; the oldest goes first.
func (w *window) charge(m mark, keep int) {
	if n := len(w.marks); n > 0 && w.marks[n-1].at > m.at {
		m.at = w.marks[n-1].at
	}
	if m.value != 0 {
		for i := range w.marks {
			if w.marks[i].value == m.value {
				w.drop(i)
				break
			}
		}
	}
	if len(w.marks) >= keep {
		w.drop(0)
	}
	w.marks = append(w.marks, m)
	w.sum += m.points
}

func (w *window) drop(i int) {
	w.sum -= w.marks[i].points
	w.marks = append(w.marks[:i], w.marks[i+1:]...)
	clear(w.marks[len(w.marks):cap(w.marks)])
}

// hard gives the points that no share protects, and soft the number of the
// other marks.
func (w *window) hard() (points milli, soft int) {
	for i := range w.marks {
		if w.marks[i].hard {
			points += w.marks[i].points
		} else {
			soft++
		}
	}
	return points, soft
}

// empty tells that nothing is left to remember.
func (w *window) empty() bool { return len(w.marks) == 0 && len(w.pending) == 0 }
