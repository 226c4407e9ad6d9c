package main

import "time"

// wallClock is the guard's clock. It has a file of its own because the
// integration tests build the program with another one in its place, which they
// set: see package testbed.
func wallClock() time.Time { return time.Now() }
