package main

import (
	"testing"
	"time"
)

// Memory is given back once the traffic has stopped, not while it lasts, and
// not again before there is something to give.
func TestMemoryKeeperGivesBackWhenQuiet(t *testing.T) {
	k := memoryKeeper{given: -giveBackEvery}
	var allocated uint64
	now := time.Duration(0)
	look := func(more uint64) bool {
		allocated += more
		now += memoryTick
		_, giveBack := k.look(allocated, 8<<20, now)
		return giveBack
	}
	for _, step := range []struct {
		what string
		more uint64
		want bool
	}{
		{"traffic", 100 << 20, false},
		{"more of it", 2 << 20, false},
		{"silence", 10 << 10, false},
		{"silence", 10 << 10, false},
		{"a word", 300 << 10, false},
		{"silence", 10 << 10, false},
		{"silence", 10 << 10, false},
		{"silence", 10 << 10, false},
		{"silence", 10 << 10, false},
		{"silence for long enough", 10 << 10, true},
		{"silence goes on", 10 << 10, false},
		{"a burst", 50 << 20, false},
		{"silence too soon", 0, false},
	} {
		if got := look(step.more); got != step.want {
			t.Errorf("%s: gives back: %v, want %v", step.what, got, step.want)
		}
	}
	for range giveBackEvery / memoryTick {
		if look(0) {
			return
		}
	}
	t.Error("what the burst left is never given back")
}

// A small heap gets room to grow, a large one grows by half, one that grows
// because connections stay is kept tight, and what hardly differs is left alone.
func TestMemoryKeeperPacesCollections(t *testing.T) {
	var k memoryKeeper
	for _, step := range []struct {
		at   time.Duration
		live uint64
		want int
	}{
		{0, 1 << 20, mostPercent},
		{10, 2 << 20, 0},
		{20, 16 << 20, growingPercent},
		{23, 16 << 20, 0},
		{30, 16 << 20, 200},
		{31, 14 << 20, 228}, // a dip
		{32, 16 << 20, 0},   // and back: no growth
		{40, 1 << 30, growingPercent},
		{50, 1 << 30, leastPercent},
	} {
		if got, _ := k.look(0, step.live, step.at*time.Second); got != step.want {
			t.Errorf("after %d s, %d MiB alive: GOGC %d, want %d", step.at, step.live>>20, got, step.want)
		}
	}
}
