package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// fail2banBans are the newest ban of each address in each jail, from fail2ban
// 0.11 on; before, the database did not tell for how long a ban was.
const fail2banBans = "SELECT ip, jail, timeofban, bantime FROM bips"

// pythonQuery does what the sqlite3 command does. fail2ban is written in Python,
// so where its database is Python is, with the module.
const pythonQuery = `
import csv, pathlib, sqlite3, sys
db = sqlite3.connect(pathlib.Path(sys.argv[1]).resolve().as_uri() + "?mode=ro", uri=True)
csv.writer(sys.stdout).writerows(db.execute(sys.argv[2]))
`

// readFail2banDatabase reads fail2ban's SQLite database by way of the sqlite3
// command or of Python: a library for the one table would be larger than all of
// mailreeve. The database may be in use.
func readFail2banDatabase(ctx context.Context, file string) ([]importEntry, error) {
	cmd := exec.CommandContext(ctx, "sqlite3", "-readonly", "-csv", "-noheader", file, fail2banBans)
	if cmd.Err != nil {
		cmd = exec.CommandContext(ctx, "python3", "-c", pythonQuery, file, fail2banBans)
	}
	if cmd.Err != nil {
		return nil, errors.New("to read fail2ban's database the sqlite3 command or python3 is needed, and neither is here; " +
			"install one, or have fail2ban itself tell: fail2ban-client get JAIL banip --with-time | mailreeve import -")
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s reads %s: %w: %s", cmd.Args[0], file, err, lastLine(stderr.String()))
	}
	rows, err := csv.NewReader(bytes.NewReader(out)).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var entries []importEntry
	for _, row := range rows {
		if len(row) != 4 {
			return nil, fmt.Errorf("%s: a row has %d columns, not 4", file, len(row))
		}
		if _, err := netip.ParseAddr(row[0]); err != nil {
			if _, err := netip.ParsePrefix(row[0]); err != nil {
				continue // fail2ban bans by other names than addresses as well
			}
		}
		begun, err1 := strconv.ParseInt(row[2], 10, 64)
		seconds, err2 := strconv.ParseInt(row[3], 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", file, row[0], err)
		}
		e := importEntry{target: row[0], reason: "fail2ban " + row[1]}
		e.lasts(time.Unix(begun, 0), seconds)
		entries = append(entries, e)
	}
	return entries, nil
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}
