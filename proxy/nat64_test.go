package proxy

import "testing"

func TestClientsBehindNAT64AreToldApart(t *testing.T) {
	for came, want := range map[string]string{
		"64:ff9b::c000:201": "192.0.2.1",
		"64:ff9b::c000:202": "192.0.2.2",
		"64:ff9b::7f00:1":   "64:ff9b::7f00:1",
		"64:ff9b::a00:1":    "64:ff9b::a00:1",
		"64:ff9b:1::1":      "64:ff9b:1::1",
		"2001:db8::1":       "2001:db8::1",
		"192.0.2.3":         "192.0.2.3",
	} {
		svc := &service{}
		if got := svc.origin(mustAddr(came), 1).Addr; got != mustAddr(want) {
			t.Errorf("%s is judged as %s, want %s", came, got, want)
		}
	}
}
