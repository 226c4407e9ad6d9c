package guard

// complete reads from the store the reasons and the evidence of sentences that
// have any. It gives, by place in the list, what is missing and why. No lock of
// the guard's is to be held.
func (g *Guard) complete(list []sentence) (missing map[int]string) {
	at := make(map[string]int)
	var keys []string
	missing = make(map[int]string)
	for i := range list {
		if list[i].stored {
			k := list[i].storeKey()
			keys = append(keys, k)
			at[k] = i
			missing[i] = "the store has no record of what led to it"
		}
	}
	if len(keys) == 0 {
		return nil
	}
	err := g.writer.read(bucketBans, keys, func(k string, value []byte) {
		i := at[k]
		if value == nil {
			return
		}
		var stored sentence
		if err := stored.decode([]byte(k), value, plainText); err != nil {
			missing[i] = "what led to it cannot be read: " + err.Error()
			return
		}
		list[i].reason, list[i].evidence = stored.reason, stored.evidence
		delete(missing, i)
	})
	if err != nil {
		for i := range missing {
			missing[i] = "what led to it cannot be read: " + err.Error()
		}
	}
	return missing
}

// explain gives sentences as operators see them, with their reasons and, if
// wanted, their evidence, as complete reads them.
func (g *Guard) explain(list []sentence, evidence bool) []Ban {
	missing := g.complete(list)
	out := make([]Ban, len(list))
	for i := range list {
		s := &list[i]
		out[i] = s.ban()
		out[i].Missing = missing[i]
		if !evidence {
			continue
		}
		events, err := decodeEvidence(s.evidence)
		if err != nil {
			out[i].Missing = "the evidence cannot be read: " + err.Error()
		}
		out[i].Events = events
	}
	if evidence && g.fleet != nil {
		g.fleet.evidence(out)
	}
	return out
}
