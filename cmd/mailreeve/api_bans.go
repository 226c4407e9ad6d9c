package main

import (
	"bufio"
	"encoding/json"
	"net/http"

	"mailreeve/guard"
)

// A banList is an answer that is written ban by ban: there may be a million.
type banList func(yield func(*guard.Ban) bool)

func (d *daemon) apiBans(r *http.Request) (any, error) {
	q := r.URL.Query()
	filter := guard.BanFilter{
		Scope:    q.Get("scope"),
		Rule:     q.Get("rule"),
		Kind:     q.Get("kind"),
		Sort:     q.Get("sort"),
		Evidence: q.Get("evidence") == "true",
	}
	if within := q.Get("within"); within != "" {
		prefix, err := guard.ParsePrefix(within)
		if err != nil {
			return nil, badRequest{err}
		}
		filter.Within = prefix
	}
	return banList(func(yield func(*guard.Ban) bool) { d.guard.EachBan(filter, yield) }), nil
}

// write writes the list as a JSON array, until the client leaves.
func (l banList) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	out := bufio.NewWriter(w)
	before := "["
	l(func(b *guard.Ban) bool {
		text, err := json.Marshal(b)
		if err != nil {
			return false // plain data always marshals
		}
		out.WriteString(before)
		before = ","
		_, err = out.Write(text)
		return err == nil
	})
	if before == "[" {
		out.WriteString(before)
	}
	out.WriteString("]\n")
	_ = out.Flush() // the client having left is all that can go wrong here
}
