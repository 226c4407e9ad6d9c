package proxy

import "sync"

// A crew runs functions on goroutines that stay for the next one. A new
// goroutine has 2 KiB of stack, and a handshake or a dial needs four to eight
// times that: to grow there, copying what is on it each time, cost a twentieth
// of what a connection does. What it gives up: the stacks of those who wait, at
// most crewWaits of them, and none once nothing has come for some seconds.
//
// Those who shake hands are a crew of their own, so that no connection lives
// for hours on the stack that its handshake needed.
type crew struct {
	next    chan func()
	off     <-chan struct{} // closed when all are to go
	waiting chan struct{}   // holds one for each who waits
	working sync.WaitGroup
}

// crewWaits is how many of a crew wait for work at most.
const crewWaits = 32

// newCrew makes a crew that ends once off is closed.
func newCrew(off <-chan struct{}) *crew {
	return &crew{next: make(chan func()), off: off, waiting: make(chan struct{}, crewWaits)}
}

// run has f run by one who waits, or by a new one.
func (cr *crew) run(f func()) {
	select {
	case cr.next <- f:
	default:
		cr.working.Add(1)
		go cr.work(f)
	}
}

func (cr *crew) work(f func()) {
	defer cr.working.Done()
	for f != nil {
		f()
		f = cr.await()
	}
}

// await gives the next function, nil if there are enough who wait.
func (cr *crew) await() func() {
	select {
	case cr.waiting <- struct{}{}:
	default:
		return nil
	}
	defer func() { <-cr.waiting }()
	select {
	case f := <-cr.next:
		return f
	case <-cr.off:
		return nil
	}
}

// idle is how many wait.
func (cr *crew) idle() int { return len(cr.waiting) }

// thin has a few of those who wait go. It is called now and then: who is needed
// comes back, and of a crew that is not needed nobody stays.
func (cr *crew) thin() {
	for range crewWaits / 8 {
		select {
		case cr.next <- nil:
		default:
			return
		}
	}
}
