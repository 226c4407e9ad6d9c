// Command install installs the Debian packages that the tests use. It does
// nothing where they are there.
package main

import (
	"fmt"
	"os"

	"mailreeve/integration/testbed"
)

func main() {
	if err := testbed.Install(); err != nil {
		fmt.Fprintln(os.Stderr, "install:", err)
		os.Exit(1)
	}
}
