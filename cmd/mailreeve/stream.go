package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"mailreeve/guard"
)

// Bans are listed as they come: of a million neither we nor the running program
// hold more than some at a time, and the first is seen at once.

// maxBan bounds a ban in an answer of the admin API, in bytes: its evidence is a
// hundred events at most.
const maxBan = 4 << 20

// eachBan asks for bans and calls f with each, as JSON.
func (in *invocation) eachBan(ctx context.Context, q url.Values, f func(json.RawMessage) error) error {
	c, err := in.admin()
	if err != nil {
		return err
	}
	resp, err := c.request(ctx, http.MethodGet, "/v1/bans", q, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	bounded := &io.LimitedReader{R: resp.Body, N: maxBan}
	answer := json.NewDecoder(bounded)
	fault := func(err error) error {
		return fmt.Errorf("the answer of %s breaks off or is not understood (another version of mailreeve?): %w", c.socket, err)
	}
	if _, err := answer.Token(); err != nil { // the list begins
		return fault(err)
	}
	for answer.More() {
		var ban json.RawMessage
		if err := answer.Decode(&ban); err != nil {
			return fault(err)
		}
		if err := f(ban); err != nil {
			return err
		}
		bounded.N = maxBan
	}
	if _, err := answer.Token(); err != nil { // and ends
		return fault(err)
	}
	return nil
}

// bansAtOnce is how many bans are shown in one go. Their columns are aligned.
const bansAtOnce = 500

// listBans prints bans as JSON, or as a table for people.
func (in *invocation) listBans(ctx context.Context, q url.Values) error {
	if in.json {
		out := bufio.NewWriter(in.stdout)
		list := jsonList{out: out}
		err := in.eachBan(ctx, q, func(ban json.RawMessage) error { return list.add(ban) })
		if err == nil {
			err = list.end()
		}
		return errors.Join(err, out.Flush())
	}
	var some []guard.Ban
	var shown banTable
	err := in.eachBan(ctx, q, func(ban json.RawMessage) error {
		var b guard.Ban
		if err := json.Unmarshal(ban, &b); err != nil {
			return fmt.Errorf("a ban is not understood (another version of mailreeve?): %w", err)
		}
		if some = append(some, b); len(some) == bansAtOnce {
			in.showMore(&shown, some)
			some = some[:0]
		}
		return nil
	})
	in.showMore(&shown, some)
	if err == nil {
		in.showEnd(&shown)
	}
	return err
}

// A jsonList writes an array element by element, indented as all that is printed.
type jsonList struct {
	out io.Writer
	n   int
}

func (l *jsonList) add(v any) error {
	var text bytes.Buffer
	text.WriteString(",\n  ")
	if l.n++; l.n == 1 {
		text.Reset()
		text.WriteString("[\n  ")
	}
	enc := json.NewEncoder(&text)
	enc.SetIndent("  ", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := l.out.Write(bytes.TrimSuffix(text.Bytes(), []byte("\n")))
	return err
}

// end ends the array.
func (l *jsonList) end() error {
	text := "\n]\n"
	if l.n == 0 {
		text = "[]\n"
	}
	_, err := io.WriteString(l.out, text)
	return err
}
