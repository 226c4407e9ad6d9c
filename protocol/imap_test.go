package protocol_test

import (
	"testing"

	"mailreeve/protocol"
	"mailreeve/protocol/transcript"
)

func TestIMAPTranscripts(t *testing.T) {
	transcript.Dir(t, protocol.Lookup("imap"), "testdata/imap")
}

func FuzzIMAP(f *testing.F) { fuzzDialogue(f, protocol.Lookup("imap")) }
