package guard

import "time"

// The figures that the design leaves open, each with its reason. What an
// operator may want to change is in [Config]; its defaults are in
// [DefaultConfig].
const (
	// attemptWait bounds how long a credential waits for others to be
	// settled: the patience of a mail client, half of the usual minute.
	attemptWait = 30 * time.Second

	// maxWaiting bounds the credentials that wait, over all clients. Each
	// holds a connection anyway; past this the answer is "try again later".
	maxWaiting = 20000

	// durableWait is how long the call that decided a ban waits for it to be
	// on disk. The ban is in force before; the wait only narrows what a crash
	// could forget, and a stalled disk must not stall a client's answer.
	durableWait = 50 * time.Millisecond

	// flushEvery is how far counters on disk may lag behind memory.
	flushEvery = 500 * time.Millisecond

	// janitorEvery is how often ended bans are announced and swept out. That
	// a ban has ended is seen at once without it.
	janitorEvery = time.Second

	// maxLimit and maxPeriod bound what one key may have to remember: a mark
	// is about 24 bytes, so the largest limit costs 100 KiB for a key that
	// reaches it.
	maxLimit  = 4096
	maxPeriod = 90 * 24 * time.Hour

	// maxMarks bounds the marks of one window. A rule whose smallest points
	// would need more to reach its limit is refused by Validate, so the bound
	// never costs exactness.
	maxMarks = 4096

	// repeatAnswer is for how long a guess that has just failed is answered
	// by us. A password changed on the server so works within the minute.
	// It is the default of Config.RepeatAnswer.
	repeatAnswer = time.Minute

	// guessMemory is for how long a failed guess is known as the same when it
	// comes again from another address of its network.
	guessMemory = time.Hour

	// maxGuesses bounds the guesses remembered, about 200 bytes each.
	maxGuesses = 50000

	// maxPlaces is how many places of one login are familiar at most; a phone
	// in mobile networks makes about one a day, so 32 hold a month.
	maxPlaces = 32

	// knownFor is how long a login success keeps an address from being
	// dropped at accept: it gets a soft ban instead.
	knownFor = 30 * 24 * time.Hour

	// maxKnown bounds the addresses, and the networks, that are remembered for
	// it, some 60 bytes each: with one account and a large IPv6 network
	// somebody could log in from as many as he likes.
	maxKnown = 500_000

	// historyFactor is how long a ban is remembered for growth, in lengths of
	// the ban, counted from its end (fail2ban's outDatedFactor).
	historyFactor = 3

	// maxDoublings keeps the doubling of a ban within an int64.
	maxDoublings = 20

	// jitterShare lengthens every ban but the first by up to this share, so
	// that a botnet banned at one moment does not come back at one moment.
	jitterShare = 0.1

	// trickleEvery is the interval over which a guarded login lets one
	// stranger, and one client of a network that is known for some success,
	// through. Two guesses in five minutes are 600 a day: too few to find a
	// password, and an owner in a new place who retries gets in within
	// minutes unless a large botnet competes. It is the default of
	// Config.Trickle.
	trickleEvery = 5 * time.Minute

	// trickleBlocked is for how long a network that failed gets no ticket. It is
	// also the longest Config.Trickle.
	trickleBlocked = 24 * time.Hour

	// maxTrickleNets bounds the failed networks remembered per login. The
	// oldest is forgotten; at 600 tickets a day none is forgotten early.
	maxTrickleNets = 1024

	// attemptBurst and attemptEvery cap the credentials of one address
	// whatever comes of them, so that refunds cannot be used to hammer a
	// server in trouble. An office of 200 phones after a restart fits, and so
	// does one whose programs log in twenty times a second all day; a webmail
	// host that does more belongs into allowed-ip, which has no pace.
	attemptBurst = 300
	attemptEvery = 50 * time.Millisecond

	// shareNeeded is the share of bad recipients below which a sender is not
	// banned for them, and shareUntil how many times the limit that holds.
	shareNeeded = 0.25
	shareUntil  = 5

	// goodAgain is the part of a rule's period, its 64th, within which a good
	// recipient is not counted again: 22 minutes of a day. So the share may
	// forget one by as much too early, and the mail of a sender who writes to
	// the same people all day costs a look, and no call to a shared store.
	goodAgain = 64

	// penaltySlow, and definiteWithin: when Postfix's "Connection lost to
	// authentication server" is a wrong password. Dovecot's penalty makes the
	// answer take 15 s, and Postfix gives up after 10; a restarting Dovecot
	// answers at once.
	penaltySlow    = 9 * time.Second
	definiteWithin = time.Minute

	// delayLength is how long the consequence "delay" holds a refusal back, if
	// tarpit is not more (weakforced's three seconds).
	delayLength = 3 * time.Second

	// troubleWindow is what the signs of a server in trouble are taken over.
	// troubleNetworks and troubleLogins are how many distinct ones of familiar
	// pairs must fail, at a share of troubleShare of all familiar outcomes: an
	// attacker has no familiar pairs, and whoever owns a few accounts has them
	// in few networks.
	troubleWindow   = 5 * time.Minute
	troubleNetworks = 5
	troubleLogins   = 5
	troubleShare    = 0.5

	// troubleDials is how many dials in a row must fail.
	troubleDials = 3

	// lostSourceMin and lostSourceShare: when almost all failures come from
	// one private address, whatever is before us hides the clients.
	lostWindow      = time.Hour
	lostSourceMin   = 50
	lostSourceShare = 0.9

	// falseBanWithin: a success from a banned address this soon after its ban
	// ended suggests that the ban hit the wrong one.
	falseBanWithin = time.Hour

	// banEvidence bounds the events kept with one ban. The score may have
	// more; the rest is kept as one summed line so that it still adds up.
	banEvidence = 64

	// evictSample is how many entries are compared to find one to evict where
	// no network is crowded.
	evictSample = 8
)

// Bounds of the tables, in entries. A tracked address with one failure costs
// about 940 bytes in all its windows (measured by BenchmarkTrackedAddress).
const (
	defaultMaxAddresses = 100_000
	defaultMaxNetworks  = 50_000
	defaultMaxLogins    = 50_000
)
