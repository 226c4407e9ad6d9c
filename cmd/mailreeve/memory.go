package main

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	gauges "runtime/metrics"
	"time"
)

// How this process uses memory: generously while there is traffic, for each
// collection of garbage costs CPU, and sparingly once it has fallen idle, for
// then thousands of connections wait and nothing else does.
//
// What it gains: connections that come and go cost a tenth less CPU, and idle
// ones half the memory a minute later; Go alone keeps a heap that was in use for
// minutes. What it gives up: some 30 MB more while busy, and one collection that
// nothing called for whenever the traffic stops.

const (
	// spareHeap is by how much a heap may at least grow between two
	// collections, in bytes. A small heap would else be collected many times a
	// second.
	spareHeap = 32 << 20

	// leastPercent and mostPercent bound what is set in GOGC's stead. A large
	// heap grows by half; one that grows because connections stay by less, for
	// what they allocated to get there leaves holes between what they keep.
	leastPercent   = 50
	mostPercent    = 400
	growingPercent = 25

	// memoryTick is how often the heap is looked at, and growingFor how long
	// one that has grown is taken to be growing.
	memoryTick = time.Second
	growingFor = 10 * time.Second

	// quietBytes is what may be allocated in a tick without it counting as
	// traffic, quietTicks how many such ticks mean that it has stopped, and
	// worthBytes what must have been allocated since the last time for giving
	// back to be worth its while.
	quietBytes = 256 << 10
	quietTicks = 5
	worthBytes = 4 << 20

	// giveBackEvery is how often memory is given back at most.
	giveBackEvery = 30 * time.Second
)

// A memoryKeeper decides. It has no clock and no heap of its own.
type memoryKeeper struct {
	percent   int           // what was last set
	peak      uint64        // the most that was alive since memory was last given back
	grew      time.Duration // when that had last grown by much
	allocated uint64        // at the last look
	quiet     int           // ticks
	givenAt   uint64        // what had been allocated when memory was last given back
	given     time.Duration
}

// look is told what has been allocated since the start and what the last
// collection left alive, in bytes, and for how long the program has run. It says
// what GOGC should be, 0 for as it is, and whether to give memory back.
func (k *memoryKeeper) look(allocated, live uint64, now time.Duration) (percent int, giveBack bool) {
	if allocated-k.allocated < quietBytes {
		k.quiet++
	} else {
		k.quiet = 0
	}
	k.allocated = allocated
	if k.quiet >= quietTicks && allocated-k.givenAt >= worthBytes && now-k.given >= giveBackEvery {
		k.givenAt, k.given, giveBack = allocated, now, true
		k.peak = live
	}
	if live > k.peak+k.peak/8 {
		k.peak, k.grew = live, now
	}
	want := int(min(mostPercent, max(leastPercent, spareHeap*100/max(live, 1))))
	if now-k.grew < growingFor && live >= spareHeap/4 {
		want = growingPercent
	}
	// To set it stops the world for a moment: not for a trifle.
	if d := want - k.percent; d > k.percent/8 || -d > k.percent/8 {
		k.percent, percent = want, want
	}
	return percent, giveBack
}

// keepMemory runs until ctx ends. GOGC in the environment stays in force.
func keepMemory(ctx context.Context) {
	_, fixed := os.LookupEnv("GOGC")
	figures := []gauges.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}
	tick := time.NewTicker(memoryTick)
	defer tick.Stop()
	keeper := memoryKeeper{given: -giveBackEvery, grew: -growingFor}
	for began := time.Now(); ; {
		gauges.Read(figures)
		percent, giveBack := keeper.look(figures[0].Value.Uint64(), figures[1].Value.Uint64(), time.Since(began))
		if percent > 0 && !fixed {
			debug.SetGCPercent(percent)
		}
		if giveBack {
			runtime.GC() // the pools of buffers keep theirs for one collection
			debug.FreeOSMemory()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
