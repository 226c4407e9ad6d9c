package guard

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// A Duration is a length of time as the configuration writes it: "30s", "10m",
// "1h", "7d", "2w", "1d12h", or "forever". The zero value is written "0".
type Duration time.Duration

// Forever is the Duration that never ends.
const Forever Duration = math.MaxInt64

// Std gives the duration as package time knows it; Forever stays the largest.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// units are the units of a Duration, largest first.
var units = [...]struct {
	name string
	size time.Duration
}{
	{"w", 7 * 24 * time.Hour},
	{"d", 24 * time.Hour},
	{"h", time.Hour},
	{"m", time.Minute},
	{"s", time.Second},
	{"ms", time.Millisecond},
}

// UnmarshalText reads a duration as the configuration writes it.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := ParseDuration(string(text))
	if err != nil {
		return err
	}
	*d = v
	return nil
}

// ParseDuration reads a duration as the configuration writes it.
func ParseDuration(s string) (Duration, error) {
	bad := fmt.Errorf("%q is not a length of time; write it like 30s, 10m, 1h, 7d, 2w or forever", s)
	switch s {
	case "forever":
		return Forever, nil
	case "0":
		return 0, nil
	case "":
		return 0, bad
	}
	var sum float64
	for rest := s; rest != ""; {
		n := len(rest) - len(strings.TrimLeft(rest, "0123456789."))
		value, err := strconv.ParseFloat(rest[:n], 64)
		if err != nil {
			return 0, bad
		}
		rest = rest[n:]
		n = len(rest) - len(strings.TrimLeft(rest, "abcdefghijklmnopqrstuvwxyz"))
		size := time.Duration(0)
		for _, u := range units {
			if u.name == rest[:n] {
				size = u.size
			}
		}
		if size == 0 {
			return 0, bad
		}
		sum += value * float64(size)
		rest = rest[n:]
	}
	// A century is already longer than any ban anybody means.
	if sum > float64(100*365*24*time.Hour) {
		return 0, fmt.Errorf("%q is too long; write forever", s)
	}
	return Duration(math.Round(sum)), nil
}

// MarshalText writes the duration so that UnmarshalText reads it back.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String writes the duration in the largest units that express it: "1d12h".
func (d Duration) String() string {
	switch {
	case d == Forever:
		return "forever"
	case d < 0:
		return "-" + Duration(-d).String()
	case d == 0:
		return "0"
	}
	rest := time.Duration(d)
	var b strings.Builder
	for _, u := range units {
		if u.name == "w" && rest%u.size != 0 {
			continue // "8d" reads better than "1w1d"
		}
		if u.size == time.Millisecond && rest > 0 {
			b.WriteString(strconv.FormatFloat(float64(rest)/float64(u.size), 'f', -1, 64) + "ms")
			break
		}
		if n := rest / u.size; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.name)
			rest -= n * u.size
		}
	}
	return b.String()
}

// A Limit is how many points within how long are too many, written "10/1h":
// as soon as the points within any one-hour span reach 10. The zero value is
// "off".
type Limit struct {
	Points float64
	Period Duration
}

// Off tells that the limit is switched off.
func (l Limit) Off() bool { return l.Points == 0 }

// UnmarshalText reads a limit as the configuration writes it.
func (l *Limit) UnmarshalText(text []byte) error {
	s := string(text)
	if s == "off" {
		*l = Limit{}
		return nil
	}
	points, period, ok := strings.Cut(s, "/")
	v, err := strconv.ParseFloat(points, 64)
	if !ok || err != nil || !(v > 0) {
		return fmt.Errorf("%q is not a limit; write points/period like 10/1h, or off", s)
	}
	p, err := ParseDuration(period)
	if err != nil {
		return err
	}
	parsed := Limit{Points: v, Period: p}
	if err := parsed.validate(); err != nil {
		return fmt.Errorf("%q: %w", s, err)
	}
	*l = parsed
	return nil
}

// validate refuses limits that cannot be kept exactly within bounded memory.
func (l Limit) validate() error {
	switch {
	case l.Off():
		return nil
	case l.Points < 1:
		return errors.New("a limit is at least 1 point; write off to switch the rule off")
	case l.Points > maxLimit:
		return fmt.Errorf("a limit is at most %d points", maxLimit)
	case l.Period < Duration(time.Second):
		return errors.New("a period is at least 1s")
	case l.Period > Duration(maxPeriod):
		return fmt.Errorf("a period is at most %v", Duration(maxPeriod))
	}
	return nil
}

// MarshalText writes the limit so that UnmarshalText reads it back.
func (l Limit) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// String writes the limit as the configuration does.
func (l Limit) String() string {
	if l.Off() {
		return "off"
	}
	return strconv.FormatFloat(l.Points, 'f', -1, 64) + "/" + l.Period.String()
}
