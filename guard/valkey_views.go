package guard

import (
	"context"
	"encoding/json"

	"github.com/valkey-io/valkey-go"
)

// A storedView is a window of the store, as read and clear give it.
type storedView struct {
	rule    string
	good    bool
	marks   []mark
	pending []pendingPoints
}

func (s *counters) views(ctx context.Context, c valkey.Client, k key, args []string) ([]storedView, error) {
	reply, err := s.script.run(ctx, c, []string{s.names.counter(k)}, args)
	if err != nil {
		return nil, err
	}
	if len(reply) != 3 {
		return nil, errReply
	}
	bad, err := reply[0].AsInt64()
	if err != nil {
		return nil, errReply
	}
	s.bad(bad)
	windows, err := reply[1].ToArray()
	if err != nil {
		return nil, errReply
	}
	events, err := reply[2].AsStrMap()
	if err != nil {
		return nil, errReply
	}
	known := make(map[string]*Event)
	var out []storedView
	for i := range windows {
		v, err := s.view(&windows[i], events, known)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

func (s *counters) view(m *valkey.ValkeyMessage, events map[string]string, known map[string]*Event) (storedView, error) {
	f, err := m.ToArray()
	if err != nil || len(f) != 5 {
		return storedView{}, errReply
	}
	var v storedView
	if v.rule, err = f[0].ToString(); err != nil {
		return v, errReply
	}
	good, _ := f[1].AsInt64()
	v.good = good == 1
	marks, _ := f[3].ToArray()
	for ; len(marks) >= 5; marks = marks[5:] {
		at, _ := marks[0].AsInt64()
		points, _ := marks[1].AsInt64()
		value, _ := marks[2].AsInt64()
		hard, _ := marks[3].AsInt64()
		id, _ := marks[4].ToString()
		if !saneMoment(at) {
			s.bad(1)
			continue
		}
		v.marks = append(v.marks, mark{at: at, points: milli(points), value: uint32(value), hard: hard == 1, trace: commons(nil).trace(s.event(id, events, known))})
	}
	pending, _ := f[4].ToArray()
	for ; len(pending) >= 5; pending = pending[5:] {
		points, _ := pending[2].AsInt64()
		value, _ := pending[3].AsInt64()
		v.pending = append(v.pending, pendingPoints{uint32(value), milli(points), 1})
	}
	return v, nil
}

// event gives the evidence of a mark, nil if there is none that makes sense.
func (s *counters) event(id string, events map[string]string, known map[string]*Event) *Event {
	if ev, ok := known[id]; ok {
		return ev
	}
	text, ok := events["e:"+id]
	if !ok {
		return nil
	}
	ev := new(Event)
	if json.Unmarshal([]byte(text), ev) != nil {
		s.bad(1)
		ev = nil
	}
	known[id] = ev
	return ev
}
