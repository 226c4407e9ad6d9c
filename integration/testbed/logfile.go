package testbed

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// A LogFile is a log that somebody else is writing.
type LogFile string

// Text returns what has been written so far.
func (l LogFile) Text() string {
	text, err := os.ReadFile(string(l))
	if err != nil {
		return ""
	}
	return string(text)
}

// Count tells how many lines match the regular expression.
func (l LogFile) Count(pattern string) int {
	return len(l.Lines(pattern))
}

// Lines returns the lines that match the regular expression.
func (l LogFile) Lines(pattern string) []string {
	re := regexp.MustCompile(pattern)
	var lines []string
	for line := range strings.Lines(l.Text()) {
		if re.MatchString(line) {
			lines = append(lines, strings.TrimSuffix(line, "\n"))
		}
	}
	return lines
}

// Await waits until a line matches, and fails the test if none does in time.
func (l LogFile) Await(t testing.TB, pattern string) string {
	t.Helper()
	var lines []string
	Eventually(t, "a line like "+pattern+" in "+string(l), func() bool {
		lines = l.Lines(pattern)
		return len(lines) > 0
	})
	return lines[0]
}

// patience is how long tests wait for something that must happen. It is long
// because machines are slow and never waited out where all is well.
const patience = 20 * time.Second

// Eventually waits until cond holds and fails the test if it does not in time.
func Eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	if !await(patience, cond) {
		t.Fatalf("waited %v in vain for %s", patience, what)
	}
}

// await asks cond every few milliseconds until it holds or the time is up.
func await(limit time.Duration, cond func() bool) bool {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if cond() {
			return true
		}
		select {
		case <-deadline.C:
			return cond()
		case <-tick.C:
		}
	}
}
