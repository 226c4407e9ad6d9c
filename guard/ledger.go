package guard

import "time"

// A ledger counts. It is the one seam between the judge and where counters
// live: in this process's memory ([memoryLedger]), or in a store that many
// proxies share, where each call is one atomic step on the server.
//
// A claim names everything that a step needs to know about its window, so that
// a ledger has no configuration of its own. Calls are made without any lock of
// the judge held and may take the time of a network round trip.
type ledger interface {
	// reserve takes all claims or none. If it takes none, blocker is the
	// index of the claim in the way, and granted says what is in the way.
	reserve(now time.Time, claims []claim) (granted grant, blocker int)

	// settle ends a reservation: charged, its points are marks from now on,
	// with ev as their evidence; refunded, they are as if never reserved. It
	// returns the totals of the charged claims, in their order.
	settle(now time.Time, claims []claim, charge bool, ev *Event) []total

	// charge adds points that were not reserved.
	charge(now time.Time, claims []claim, ev *Event) []total

	// note counts a good recipient, the other side of a share, unless it was
	// counted a short while ago, see goodAgain.
	note(now time.Time, c claim)

	// clear forgets the settled points of the windows that which chooses, up to
	// a moment in milliseconds, and tells what they were. What is reserved
	// stays reserved.
	clear(k key, upto int64, which func(rule string) bool) []cleared

	// read gives the windows of a key as they stand.
	read(now time.Time, k key, terms func(rule string) (terms, bool)) []reading

	// ticket draws a ticket of a guarded login's trickle, and tells whether
	// the network got it; ticketFailed says that it was used in vain. pardon
	// forgets that, up to a moment in milliseconds, of the logins and networks
	// that which chooses; named is one of the logins, of which others may know.
	ticket(now time.Time, ask *ticketAsk) bool
	ticketFailed(now time.Time, login string, network string)
	pardon(upto int64, which func(key) bool, named string)
}

// A ticketAsk asks for a ticket of a guarded login's trickle.
type ticketAsk struct {
	login, network string
	// known: somebody logged in from the network lately.
	known bool
	// every is the trickle's interval.
	every time.Duration
}

// terms are what a window must keep to.
type terms struct {
	limit  milli
	period time.Duration
	// keep bounds the marks; a rule with a share keeps more than its limit.
	keep int
	// share: the limit also needs shareNeeded of the recipients to be bad.
	share bool
}

// A claim is what one event asks of one window.
type claim struct {
	key    key
	rule   string
	points milli
	// value, unless 0, is counted once.
	value uint32
	// yields: if the window has no room because its settled points have
	// reached the limit, the rest is taken without this claim.
	yields bool
	// good: not points but a good recipient, the other side of a share.
	good bool
	hard bool
	// hold names the reservation in a shared store. A ledger sets it.
	hold string
	terms
}

// grant is a ledger's answer to reserve.
type grant uint8

const (
	granted grant = iota
	full          // of unsettled reservations: wait
	over          // of settled points: refuse
)

// A total is a window after a charge.
type total struct {
	key   key
	rule  string
	sum   milli
	limit milli
	// tripped: this charge reached the limit. It is told once per crossing.
	tripped bool
}

// cleared is a window that was cleared.
type cleared struct {
	key   key
	rule  string
	sum   milli
	marks []mark
}

// A reading is a window as it stands.
type reading struct {
	key     key
	rule    string
	sum     milli
	pending milli
	marks   []mark
}
