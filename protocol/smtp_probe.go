package protocol

func newSMTPProber(s ProbeSetup) Prober { return nil }
