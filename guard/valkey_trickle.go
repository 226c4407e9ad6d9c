package guard

import (
	"time"
)

func (l *fleetLedger) ticket(now time.Time, login, network string, known bool) bool {
	return l.local.ticket(now, login, network, known)
}

func (l *fleetLedger) ticketFailed(now time.Time, login, network string) {
	l.local.ticketFailed(now, login, network)
}
