package protocol_test

import (
	"testing"

	"mailreeve/protocol"
	"mailreeve/protocol/transcript"
)

func TestSMTPTranscripts(t *testing.T) {
	transcript.Dir(t, protocol.Lookup("smtp"), "testdata/smtp")
}

func TestSubmissionTranscripts(t *testing.T) {
	transcript.Dir(t, protocol.Lookup("submission"), "testdata/submission")
}
