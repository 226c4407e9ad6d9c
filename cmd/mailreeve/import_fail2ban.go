package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
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
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	bounded := &io.LimitedReader{R: pipe, N: maxImport}
	entries, err := readFail2banRows(bounded)
	if err != nil || bounded.N == 0 {
		_ = cmd.Process.Kill() // it may go on for ever
	}
	ended := cmd.Wait()
	switch {
	case bounded.N == 0:
		return nil, fmt.Errorf("it has more than %d bytes", maxImport)
	case err == nil && ended != nil:
		return nil, fmt.Errorf("%s reads it: %w: %s", cmd.Args[0], ended, lastLine(stderr.String()))
	}
	return entries, err
}

// readFail2banRows reads what the query gives.
func readFail2banRows(r io.Reader) (entries []importEntry, err error) {
	rows := csv.NewReader(r)
	rows.FieldsPerRecord, rows.ReuseRecord = 4, true
	for {
		row, err := rows.Read()
		if err == io.EOF {
			return entries, nil
		}
		if err != nil {
			return nil, err
		}
		if _, err := netip.ParseAddr(row[0]); err != nil {
			if _, err := netip.ParsePrefix(row[0]); err != nil {
				continue // fail2ban bans by other names than addresses as well
			}
		}
		begun, err1 := strconv.ParseInt(row[2], 10, 64)
		seconds, err2 := strconv.ParseInt(row[3], 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("%s: %w", row[0], err)
		}
		e := importEntry{target: strings.Clone(row[0]), reason: "fail2ban " + row[1]}
		e.lasts(time.Unix(begun, 0), seconds)
		entries = append(entries, e)
	}
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}
