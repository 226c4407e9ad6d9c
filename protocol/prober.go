package protocol

// ProbeSetup tells a Prober how far to go.
type ProbeSetup struct {
	// Name is the name we give in EHLO.
	Name string

	// StartTLS asks for STARTTLS before anything else.
	StartTLS bool

	// XClient asks that the server offers XCLIENT; SMTP and submission only.
	XClient bool

	// Stop ends the dialogue once TLS is up, without QUIT, for a client's
	// dialogue to go on. Otherwise capabilities are learnt and QUIT is said.
	Stop bool
}

// A Prober is our own short dialogue with a server.
type Prober interface {
	// Server is shown one line of the server, with its line end.
	Server(line []byte) ProbeStep
}

// A ProbeStep is a Prober's answer.
type ProbeStep struct {
	// Send goes to the server; with StartTLS, once hands are shaken.
	Send []byte
	// StartTLS: shake hands now. A byte that is unread then is a fault.
	StartTLS bool
	// Done: Offer is complete (with Stop: Greeting is, and the connection is
	// ready for the client's dialogue).
	Done  bool
	Offer *Offer
	// Greeting is the server's greeting as it came, to be shown to the
	// conversation as if it came now.
	Greeting []byte
	// Err is what the server did wrong, in a sentence for the operator.
	Err error
}
