package main

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
)

// A version says what was built.
type version struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	// Modified tells that the source had changes that are in no commit.
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// release is the version that the linker was given, as `make build` does; ""
// leaves it to what the Go tool knows.
var release string

// buildVersion reads what the Go tool wrote into the binary.
func buildVersion() version {
	v := version{
		Version:  "(devel)",
		Go:       runtime.Version(),
		Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	switch {
	case release != "":
		v.Version = release
	case info.Main.Version != "":
		v.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}

func (v version) String() string {
	s := "mailreeve " + v.Version
	if v.Revision != "" {
		s += " " + v.Revision[:min(12, len(v.Revision))]
	}
	if v.Modified {
		s += " (modified)"
	}
	return s + " " + v.Go + " " + v.Platform
}

func versionVerb(*flag.FlagSet) action {
	return func(_ context.Context, in *invocation, args []string) error {
		if err := noArguments(args); err != nil {
			return err
		}
		if in.json {
			return in.printJSON(buildVersion())
		}
		_, err := fmt.Fprintln(in.stdout, buildVersion())
		return err
	}
}
