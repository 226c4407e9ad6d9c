// Package testbed starts what the integration tests need: a real Postfix, a
// real Dovecot, small scripted servers for what those will not do on demand,
// and mailreeve itself, built with the race detector.
//
// A [Bed] is the pair of real servers with their users; one serves all tests
// of a run. A [Proxy] is one running mailreeve with a configuration, ports,
// store and log of its own, so that tests run in parallel. A [Fake] is a
// scripted server that reads the PROXY header for real. [Dial] is a client that
// speaks line by line from any loopback address: every 127.x.y.z is somebody
// else to the guard, and tests keep apart by using different ones.
//
// Servers are children of the test process, are stopped by their process ids
// and die with it. Passwords are made by [Secrets], which also searches what a
// proxy has left behind for them.
package testbed
