package integration

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"mailreeve/integration/testbed"
)

// Two thousand networks try one password each on one login. The servers see the
// login's budget and the trickle, while its owner gets in from where they were
// yesterday, on the road from a network that is known for a colleague's login
// even as the attack goes on, and from anywhere else soon after it.
func TestABotnetOnOneLoginMeetsItsBudget(t *testing.T) {
	t.Parallel()
	const networks, limit, trickle = 2000, 20, time.Minute
	const home, known, anywhere = "127.51.0.1", "127.51.7.2", "127.51.99.1"
	owner, colleague := bed.Users[40], bed.Users[41]
	cfg := bed.Standard(defaults(map[string]any{"trickle": "1m"})).Without("mx", "submission", "imap")
	p := bed.NewProxyWithClock(t, cfg)
	mustLogin(t, p.Guess("imaps", home, owner.Login, owner.Password))
	mustLogin(t, p.Guess("submissions", "127.51.7.1", colleague.Login, colleague.Password))
	p.Pass(24 * time.Hour)
	began := p.Now()

	// Every 20 guesses 10 seconds pass, in which the owner tries twice.
	const step, every = 10 * time.Second, 20
	var attack, athome, onTheRoad tally
	var turn sync.Mutex
	next, passed := 0, time.Duration(0)
	var arrived time.Duration
	take := func() (i int) {
		turn.Lock()
		defer turn.Unlock()
		if next++; next%every != 0 {
			return next
		}
		p.Pass(step)
		passed += step
		athome.try(p.Guess("imaps", home, owner.Login, owner.Password))
		if next > 5*every && arrived == 0 && onTheRoad.try(p.Guess("submissions", known, owner.Login, owner.Password)) == testbed.Accepted {
			arrived = passed - 5*step
		}
		return next
	}
	wrong := bed.Secrets.New("botnet-of-2000")
	together(20, func(int) {
		for i := take(); i <= networks; i = take() {
			from := fmt.Sprintf("127.%d.%d.1", 100+i/250, i%250)
			listener := []string{"imaps", "submissions"}[i%2]
			attack.try(p.Guess(listener, from, owner.Login, fmt.Sprintf("%s-%d", wrong, i)))
		}
	})
	reached := bed.Dovecot.FlushedLog(t).Count(`passwd-file\(` + owner.Login + `,127\.1\d\d\..*Password mismatch`)
	// Tickets are by minutes of the clock, and the first and the last of them
	// need not be whole.
	minutes := int(p.Now().Unix()/60 - began.Unix()/60 + 1)
	if most := limit + minutes; reached < limit+minutes/2 || reached > most {
		t.Errorf("%d guesses reached the servers in %v, want up to %d: %v", reached, passed, most, &attack)
	}
	if n := attack.count[testbed.Wrong] + attack.count[testbed.Later]; n != networks {
		t.Errorf("%d of %d were answered: %v", n, networks, &attack)
	}
	if n := athome.count[testbed.Accepted]; n < networks/every {
		t.Errorf("at home the owner got in %d times of %d: %v", n, networks/every, &athome)
	}
	if arrived == 0 || arrived > 2*trickle {
		t.Errorf("in a network that is known the owner got in after %v: %v", arrived, &onTheRoad)
	}
	if waited := waitForTrickle(p, p.Guess("imaps", anywhere, owner.Login, owner.Password), trickle); waited > 2*trickle {
		t.Errorf("in a new place the owner waited for %v", waited)
	}
	if bans := p.Bans(); len(bans) > 0 {
		t.Errorf("one guess each, and these are banned: %v", bans)
	}
}

// waitForTrickle tries a login until it is let in, and tells how long it took by
// the guard's clock, which it moves.
func waitForTrickle(p *testbed.Proxy, g testbed.Guess, trickle time.Duration) (waited time.Duration) {
	const step = 3 * time.Second
	for ; waited <= 3*trickle && g.Answer() != testbed.Accepted; waited += step {
		p.Pass(step)
	}
	return waited
}

// Without a trickle nobody gets in from a new place until the login is opened by
// hand; a wrong password from there is then judged by the server again.
func TestALoginIsOpenedByHand(t *testing.T) {
	t.Parallel()
	const limit, place = 5, "127.57.99.1"
	owner := bed.Users[47]
	p := bed.NewProxy(t, bed.Standard(map[string]any{"login": fmt.Sprintf("%d/1h", limit), "trickle": "0"}))
	for i := range limit {
		p.Guess("imaps", fmt.Sprintf("127.57.%d.1", i), owner.Login, bed.Secrets.New(fmt.Sprintf("closed%d", i))).Answer()
	}
	away := p.Guess("imaps", place, owner.Login, owner.Password)
	for range 20 {
		if answer := away.Answer(); answer != testbed.Later {
			t.Fatalf("the login is closed, and its owner in a new place is answered %v", answer)
		}
	}
	p.Admin("allow", "--login", owner.Login, "--for", "1h")
	if answer := p.Guess("imaps", "127.57.98.1", owner.Login, bed.Secrets.New("opened")).Answer(); answer != testbed.Wrong {
		t.Errorf("the login is open, and a wrong password is answered %v", answer)
	}
	mustLogin(t, away).Close()
	p.Admin("disallow", "--login", owner.Login)
	if answer := p.Guess("imaps", "127.57.97.1", owner.Login, owner.Password).Answer(); answer != testbed.Later {
		t.Errorf("the login is closed again, and a new place is answered %v", answer)
	}
	mustLogin(t, away).Close() // familiar since a moment ago
}
