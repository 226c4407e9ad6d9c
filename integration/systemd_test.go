package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"mailreeve/integration/testbed"
)

// unitConfig is what the unit is started with; the server behind is away.
const unitConfig = `hostname = "mx.example.test"
[[certificate]]
cert = "/etc/mailreeve/mx.pem"
key  = "/etc/mailreeve/mx.key"
[[upstream]]
name      = "postfix-mx"
addresses = ["127.0.0.1:2525"]
[[listener]]
name     = "mx"
address  = ":25"
protocol = "smtp"
tls      = "starttls"
upstream = "postfix-mx"
[[listener]]
name     = "submissions"
address  = "[::]:465"
protocol = "submission"
tls      = "implicit"
upstream = "postfix-mx"
[enforce]
kernel-filter = "required"
[guard]
exempt-local = false
`

const configPath = "/etc/mailreeve/config.toml"

// TestSystemd has the installed unit run by a real systemd, as an operator does
// who has read the README.
func TestSystemd(t *testing.T) {
	t.Parallel()
	m := bed.NewMachine(t)
	t.Run("unit", func(t *testing.T) {
		m.Must(t, "systemd-analyze", "verify", "/usr/local/lib/systemd/system/mailreeve.service")
		// Ten times the exposure that systemd sees in the unit: 1.9 of 10.
		m.Must(t, "systemd-analyze", "--no-pager", "security", "--threshold=20", "mailreeve.service")
	})
	t.Run("fault", func(t *testing.T) { faultUnderSystemd(t, m) })
	t.Run("restart", func(t *testing.T) { restartUnderSystemd(t, m) })
	t.Run("ports", func(t *testing.T) { portsUnderSystemd(t, m) })
	t.Run("journal", func(t *testing.T) { journalOf(t, m) })
}

// A configuration that will not do is said in words of systemd's that are
// right, as an error that names the line, and nobody is kept waiting.
func faultUnderSystemd(t *testing.T, m *testbed.Machine) {
	m.Write(t, configPath, strings.Replace(unitConfig, "exempt-local", "exempt-locals", 1))
	if out, err := m.Run("systemctl", "start", "mailreeve"); err == nil {
		t.Errorf("it starts: %s", out)
	}
	if out, _ := m.Run("systemctl", "--no-pager", "status", "mailreeve"); !strings.Contains(out, "status=78)") {
		t.Errorf("the status does not say what is wrong:\n%s", out)
	}
	if out := m.Must(t, "journalctl", "--unit=mailreeve", "--output=cat"); !strings.Contains(out, "status=78/CONFIG") {
		t.Errorf("the journal does not say what is wrong:\n%s", out)
	}
	if out := m.Must(t, "journalctl", "--unit=mailreeve", "--priority=err", "--output=cat"); !strings.Contains(out, "mailreeve: "+configPath+":23: ") {
		t.Errorf("the journal's errors do not name the line:\n%s", out)
	}
	m.Must(t, "systemctl", "stop", "mailreeve")
}

// Clients that come while it restarts, or is started again after a crash, wait
// for it, and who is banned stays out. After a stop they are refused.
func restartUnderSystemd(t *testing.T, m *testbed.Machine) {
	m.Write(t, configPath, unitConfig)
	m.Must(t, "systemctl", "start", "mailreeve")
	m.Must(t, "mailreeve", "ban", "127.0.0.2", "--reason", "a test")
	for _, end := range [][]string{{"restart", "mailreeve"}, {"kill", "--signal=KILL", "mailreeve"}} {
		pid := m.Must(t, "systemctl", "show", "--property=MainPID", "--value", "mailreeve")
		ended := make(chan string)
		go func() {
			out, err := m.Run(append([]string{"systemctl"}, end...)...)
			ended <- fmt.Sprint(err, out)
		}()
		again := false
		for n := 0; n < 20 || !again; n++ {
			greeted(t, m)
			again = m.Must(t, "systemctl", "show", "--property=MainPID", "--value", "mailreeve") != pid && m.Active("mailreeve")
		}
		if said := <-ended; !strings.HasPrefix(said, "<nil>") {
			t.Errorf("systemctl %v: %s", end, said)
		}
		if out := m.Must(t, "mailreeve", "bans"); !strings.Contains(out, "127.0.0.2") {
			t.Errorf("after %v the ban is gone:\n%s", end, out)
		}
	}
	m.Must(t, "systemctl", "stop", "mailreeve")
	if c, err := m.Dial(25, time.Second); err == nil {
		c.Close()
		t.Error("after a stop port 25 is open still")
	}
}

// greeted connects, and must be greeted: at once or once it is back.
func greeted(t *testing.T, m *testbed.Machine) {
	t.Helper()
	c, err := m.Dial(25, 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if line, err := c.Line(); err != nil || !strings.HasPrefix(line, "220 ") {
		t.Fatalf("greeted with %q, %v", line, err)
	}
}

// A restart with other addresses closes the old ones and serves the new ones,
// also where they stand in each other's way; a restart with a faulty
// configuration has clients refused, so that they go elsewhere.
func portsUnderSystemd(t *testing.T, m *testbed.Machine) {
	m.Must(t, "systemctl", "start", "mailreeve")
	m.Write(t, configPath, strings.NewReplacer(`":25"`, `"0.0.0.0:25"`, `"[::]:465"`, `"127.0.0.1:587"`).Replace(unitConfig))
	m.Must(t, "systemctl", "restart", "mailreeve")
	greeted(t, m)
	if c, err := m.Dial(465, time.Second); err == nil {
		c.Close()
		t.Error("a port that is no longer configured is open")
	}
	m.Write(t, configPath, "nonsense")
	if out, err := m.Run("systemctl", "restart", "mailreeve"); err == nil {
		t.Errorf("it starts: %s", out)
	}
	if c, err := m.Dial(25, time.Second); err == nil {
		c.Close()
		t.Error("clients wait at a port that nobody is going to serve")
	}
	m.Must(t, "systemctl", "stop", "mailreeve")
}

// The journal has priorities, and one time for each line.
func journalOf(t *testing.T, m *testbed.Machine) {
	all := m.Must(t, "journalctl", "--unit=mailreeve", "--output=cat")
	warnings := m.Must(t, "journalctl", "--unit=mailreeve", "--priority=warning", "--output=cat")
	const serving, away = "level=INFO msg=serving", `level=WARN msg="server does not answer as it should"`
	switch {
	case !strings.Contains(all, serving) || strings.Contains(warnings, serving):
		t.Errorf("warnings:\n%s", warnings)
	case !strings.Contains(warnings, away):
		t.Errorf("it is no warning that the server is away:\n%s", all)
	case strings.Contains(all, "time="):
		t.Errorf("lines have a time of their own:\n%s", all)
	}
}
