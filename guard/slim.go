package guard

import "slices"

// slimFrom is how many entries a map must have held before it is worth making
// anew.
const slimFrom = 1024

// A slim map is made anew once it holds less than a quarter of the most that it
// held: Go's maps keep the room that they ever needed, so after an attack from a
// hundred thousand addresses the memory of it would stay. most is kept by the
// caller, beside the map; it is what the map held at the most at any call.
func slim[K comparable, V any](m map[K]V, most *int) map[K]V {
	*most = max(*most, len(m))
	if *most < slimFrom || len(m) >= *most/4 {
		return m
	}
	// Not maps.Clone, which copies the room as well.
	anew := make(map[K]V, len(m))
	for k, v := range m {
		anew[k] = v
	}
	*most = len(m)
	return anew
}

// slimLocked gives back what the tables need no more.
func (l *memoryLedger) slimLocked() {
	l.entries = slim(l.entries, &l.most.entries)
	l.crowds.byNet = slim(l.crowds.byNet, &l.most.nets)
	l.trickles = slim(l.trickles, &l.most.trickles)
	l.crowds.heap = slimList(l.crowds.heap)
	for i := range l.byKind {
		l.byKind[i] = slimList(l.byKind[i])
	}
}

func slimList[L ~[]E, E any](list L) L {
	if cap(list) < slimFrom || len(list) >= cap(list)/4 {
		return list
	}
	return slices.Clone(list)
}
