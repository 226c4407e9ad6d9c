package proxy

import (
	"time"

	"mailreeve/protocol"
)

// judge asks the guard about a credential and tells the conversation. It is
// called with mu held and returns with mu held, but lets go of it while it
// asks: the guard may have the attempt wait. It returns false if the client is
// banned.
func (c *conn) judge(cred *protocol.Credential) bool {
	c.understood.Store(true)
	c.asking.Store(true)
	c.mu.Unlock()
	ctx, done := c.during()
	attempt, d := c.service.server.guard.Attempt(ctx, &c.origin, cred)
	done()
	c.mu.Lock()
	c.heard.Store(moment())
	c.asking.Store(false)
	c.attempt = attempt
	if d.Verdict == protocol.Banned && !c.authenticated.Load() {
		return false
	}
	c.delay = d.Delay
	c.pause()
	if len(cred.Identities) > 0 {
		c.login = cred.Identities[0]
	}
	c.present = false
	if attempt != nil {
		c.asked.Store(moment())
	}
	c.conv.Verdict(d.Verdict)
	c.notePhase()
	return true
}

// tell tells the guard what a step says, before anything of the step is
// released. It is called with mu held. It returns true if the client is banned
// and must be cut now.
func (c *conn) tell(step *protocol.Step) bool {
	banned := false
	if step.Outcome != protocol.Unsettled && c.attempt != nil {
		banned = c.settle(step)
	}
	for _, e := range step.Events {
		if c.tellEvent(e) {
			banned = true
		}
	}
	if step.Progress {
		c.progressed.Store(moment())
	}
	if !banned || c.authenticated.Load() {
		return false
	}
	if !c.gate.open() {
		c.cutLater.Store(true)
		return false
	}
	return true
}

func (c *conn) settle(step *protocol.Step) bool {
	attempt := c.attempt
	c.attempt = nil
	c.deciding.Store(true)
	d := c.service.server.guard.Settle(attempt, step.Outcome, step.Code)
	c.deciding.Store(false)
	c.delay = d.Delay
	if step.Outcome == protocol.Failure || step.Outcome == protocol.Left {
		c.remember(protocol.AuthFailure)
	}
	if step.Outcome == protocol.Success {
		c.authenticated.Store(true)
		c.service.server.conns.loggedIn(c)
		c.cutLater.Store(false)
		return false
	}
	return d.Verdict == protocol.Banned || c.cutLater.Load()
}

// pause holds an answer back for as long as the guard has said: what a wrong
// guess costs the guesser. It is called with mu held and lets go of it.
func (c *conn) pause() {
	delay := c.delay
	if delay <= 0 {
		return
	}
	c.delay = 0
	up := false
	timer := time.AfterFunc(delay, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		up = true
		c.turn.Broadcast()
	})
	defer timer.Stop()
	for !up && !c.over {
		c.turn.Wait()
	}
}

// maxEvents bounds the events that a connection remembers for its log line.
const maxEvents = 1000

// note tells an event, if there is one, outside of the dialogue.
func (c *conn) note(k protocol.Kind) {
	if k != "" {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.tellEvent(protocol.Event{Kind: k})
	}
}

// remember keeps an event for the connection's log line.
func (c *conn) remember(k protocol.Kind) {
	if len(c.events) < maxEvents {
		c.events = append(c.events, k)
	}
}

func (c *conn) tellEvent(e protocol.Event) bool {
	if e.Kind == protocol.GoodRcpt {
		c.delivered.Store(true)
	} else {
		c.remember(e.Kind)
	}
	if c.unscored {
		return false
	}
	login := ""
	if c.authenticated.Load() {
		login = c.login
	}
	c.deciding.Store(true)
	d := c.service.server.guard.Report(&c.origin, login, e)
	c.deciding.Store(false)
	return d.Verdict == protocol.Banned || c.cutLater.Load()
}

// notePhase publishes the conversation's phase. It is called with mu held
// after every call of the conversation, and before anything is written.
func (c *conn) notePhase() {
	p := c.conv.Phase()
	c.phase.Store(uint32(p))
	c.gate.follow(p)
	if !restful(p) {
		// One pump may have left for the rest, and the other have found
		// something to do all the same: it will need that one.
		c.stirLocked()
	}
}
