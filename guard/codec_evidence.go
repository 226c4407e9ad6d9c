package guard

// encodeEvidence encodes what led to a sentence; "" is nothing.
func encodeEvidence(list []Scored) string {
	if len(list) == 0 {
		return ""
	}
	shared := make(commons)
	marks, folded := make([]mark, len(list)), make([]int, len(list))
	for i := range list {
		s := &list[i]
		marks[i] = mark{at: s.Time.UnixMilli(), points: toMilli(s.Points)}
		if s.Kind != "" {
			marks[i].trace = shared.trace(&s.Event)
		}
		folded[i] = s.Folded
	}
	var e marksEncoder
	e.add(marks, folded)
	return string(e.appendTo([]byte{codecVersion}))
}

// decodeEvidence gives what led to a sentence.
func decodeEvidence(text string) ([]Scored, error) {
	if text == "" {
		return nil, nil
	}
	d := decoder{b: []byte(text)}
	d.version()
	marks, folded := d.marks(d.commons(nil))
	if d.bad || len(d.b) > 0 {
		return nil, errRecord
	}
	out := make([]Scored, len(marks))
	for i := range marks {
		out[i] = scored(&marks[i])
		if folded != nil {
			out[i].Folded = folded[i]
		}
	}
	return out, nil
}
