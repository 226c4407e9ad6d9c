package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mailreeve/integration/testbed"
)

// When almost all wrong passwords come from one private address, the clients'
// addresses are being lost before us. It is said once and loudly, with what it
// likely is, and shown by a metric and by status.
func TestLostSourceAddressesAreSaid(t *testing.T) {
	t.Parallel()
	fake := testbed.NewFake(t, testbed.Script{Protocol: "imap"})
	cfg := testbed.InFront("imap", "none", fake.Port, nil)
	cfg.Guard["authentication"] = "1000/1h"
	cfg.Listeners[0].PlaintextAuth = "yes"
	p := bed.NewProxy(t, cfg)
	const metric = "mailreeve_source_addresses_lost"
	if v := p.Metric(metric, nil); v != 0 {
		t.Errorf("%s is %v before anything has happened", metric, v)
	}
	secret := bed.Secrets.New("lost")
	for i := range 60 {
		p.Guess("imap", "127.55.0.1", fmt.Sprintf("user%d", i), fmt.Sprintf("%s-%d", secret, i)).Answer()
	}
	if v := p.Metric(metric, nil); v != 1 {
		t.Errorf("%s is %v", metric, v)
	}
	if n := p.Log.Count(`level=WARN.*addresses are lost.*trusted-proxies.*client=127\.55\.0\.1`); n != 1 {
		t.Errorf("the warning is in the log %d times", n)
	}
	if status := p.Admin("status"); !strings.Contains(status, "WARNING") || !strings.Contains(status, "127.55.0.1") {
		t.Errorf("status does not warn:\n%s", status)
	}
}

// The event log has what happened, and nothing secret (which is searched for
// when the test ends); played against stricter settings it tells whom those
// would have banned, and that one of them was probably no attacker.
func TestAnEventLogIsReplayedUnderOtherSettings(t *testing.T) {
	t.Parallel()
	const attacker, person = "127.56.0.1", "127.56.1.1"
	cfg := bed.Standard(map[string]any{"authentication": "10/1h"})
	cfg.Events = map[string]any{}
	p := bed.PrepareProxy(t, cfg)
	log := filepath.Join(p.Dir, "events.jsonl")
	cfg = p.Config
	cfg.Events["log"] = log
	p.WriteConfig(cfg)
	p.Start()

	user, victim := bed.Users[45], bed.Users[46]
	for i := range 15 {
		p.Guess("submissions", attacker, victim.Login, bed.Secrets.New(fmt.Sprintf("replay%d", i))).Answer()
	}
	for i := range 6 {
		p.Guess("imaps", person, user.Login, bed.Secrets.New(fmt.Sprintf("typo%d", i))).Answer()
	}
	mustLogin(t, p.Guess("imaps", person, user.Login, user.Password)).Close()
	mustBan(t, p, attacker)
	if events := p.Admin("events", "--follow=false", "-n", "100"); !strings.Contains(events, "ban ") || !strings.Contains(events, "auth-success") {
		t.Errorf("events:\n%s", events)
	}
	p.Stop()

	cfg.Guard["authentication"] = "5/1h"
	p.WriteConfig(cfg)
	var answer struct {
		Was, Would struct {
			Bans      int
			FalseBans int `json:"false_bans"`
		}
		Bans []struct {
			Change string
			Ban    testbed.Ban
		}
	}
	if err := json.Unmarshal([]byte(p.Admin("replay", log, "--json")), &answer); err != nil {
		t.Fatal(err)
	}
	if answer.Was.Bans != 1 || answer.Was.FalseBans != 0 || answer.Would.Bans != 2 || answer.Would.FalseBans != 1 {
		t.Errorf("replay: %+v", answer)
	}
	for _, b := range answer.Bans {
		if want := map[string]string{attacker: "same", person: "new"}[b.Ban.Target]; b.Change != want {
			t.Errorf("the ban of %s is %s, want %s", b.Ban.Target, b.Change, want)
		}
	}
	if info, err := os.Stat(log); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the log: %v, %v", info, err)
	}
}
