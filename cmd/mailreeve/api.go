package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"mailreeve/guard"
	"mailreeve/proxy"
)

// The admin API: HTTP and JSON over a Unix socket. docs/api.md documents it;
// TestAPIDocumented keeps both lists of paths equal.

// maxRequest bounds a request's body, in bytes.
const maxRequest = 64 << 10

// An apiError is the body of every answer but 200.
type apiError struct {
	// Error is a sentence for the operator.
	Error string `json:"error"`
	// Config tells that the configuration file is at fault.
	Config bool `json:"config,omitempty"`
}

// A badRequest is an error of who called.
type badRequest struct{ error }

func (e badRequest) Unwrap() error { return e.error }

// A route is a call of the API. serve gives the answer, to be written as JSON.
type route struct {
	pattern string
	serve   func(r *http.Request) (any, error)
}

func (d *daemon) routes() []route {
	return []route{
		{"GET /v1/status", d.apiStatus},
		{"GET /v1/version", func(*http.Request) (any, error) { return buildVersion(), nil }},
		{"GET /v1/bans", d.apiBans},
		{"POST /v1/bans", d.apiBan},
		{"POST /v1/import", d.apiImport},
		{"POST /v1/unban", d.apiUnban},
		{"GET /v1/allowed", func(*http.Request) (any, error) { return orEmpty(d.guard.Allowed()), nil }},
		{"POST /v1/allow", d.apiAllow},
		{"POST /v1/disallow", d.apiDisallow},
		{"GET /v1/why", d.apiWhy},
		{"GET /v1/logins", func(*http.Request) (any, error) { return orEmpty(d.guard.Logins()), nil }},
		{"GET /v1/top", d.apiTop},
		{"POST /v1/reload", d.apiReload},
	}
}

// api serves the calls.
func (d *daemon) api() http.Handler {
	mux := http.NewServeMux()
	for _, r := range d.routes() {
		mux.HandleFunc(r.pattern, func(w http.ResponseWriter, req *http.Request) {
			most := int64(maxRequest)
			if req.URL.Path == "/v1/import" {
				most = maxImportRequest
			}
			req.Body = http.MaxBytesReader(w, req.Body, most)
			answer, err := r.serve(req)
			if err != nil {
				writeAPIError(w, err)
				return
			}
			if list, ok := answer.(banList); ok {
				list.write(w)
				return
			}
			writeJSON(w, http.StatusOK, answer)
		})
	}
	mux.HandleFunc("GET /v1/events", d.apiEvents)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusNotFound, apiError{Error: "there is no " + r.Method + " " + r.URL.Path})
	})
	return mux
}

func writeJSON(w http.ResponseWriter, status int, answer any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// The client having left is all that can go wrong here.
	_ = json.NewEncoder(w).Encode(answer)
}

func writeAPIError(w http.ResponseWriter, err error) {
	status := http.StatusConflict
	var bad badRequest
	if errors.As(err, &bad) {
		status = http.StatusBadRequest
	}
	var exit *exitError
	writeJSON(w, status, apiError{err.Error(), errors.As(err, &exit) && exit.code == exitConfig})
}

// orEmpty makes an empty list read [] and not null.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// readBody decodes a request strictly.
func readBody(r *http.Request, into any) error {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return badRequest{fmt.Errorf("the request is not what %s %s takes: %w", r.Method, r.URL.Path, err)}
	}
	if _, err := dec.Token(); err != io.EOF {
		return badRequest{errors.New("there is more than one JSON value in the request")}
	}
	return nil
}

// A statusAnswer is the answer to GET /v1/status.
type statusAnswer struct {
	Version  version      `json:"version"`
	PID      int          `json:"pid"`
	Started  time.Time    `json:"started"`
	Config   string       `json:"config"`
	Loaded   time.Time    `json:"loaded"`
	Ready    bool         `json:"ready"`
	NotReady string       `json:"not_ready,omitempty"`
	Proxy    proxy.Status `json:"proxy"`
	Guard    guard.Status `json:"guard"`
}

func (d *daemon) apiStatus(*http.Request) (any, error) {
	s := statusAnswer{
		Version: buildVersion(),
		PID:     os.Getpid(),
		Started: d.started,
		Config:  d.file,
		Loaded:  d.loadedAt(),
		Ready:   true,
		Proxy:   d.proxy.Status(),
		Guard:   d.guard.Status(),
	}
	if err := d.proxy.Ready(); err != nil {
		s.Ready, s.NotReady = false, err.Error()
	}
	return s, nil
}

func (d *daemon) apiBan(r *http.Request) (any, error) {
	var req guard.BanRequest
	if err := readBody(r, &req); err != nil {
		return nil, err
	}
	if _, err := guard.ParsePrefix(req.Target); err != nil {
		return nil, badRequest{err}
	}
	if err := d.current().checkScope(req.Scope); err != nil {
		return nil, badRequest{err}
	}
	return d.guard.AddBan(req)
}

func (d *daemon) apiUnban(r *http.Request) (any, error) {
	var req guard.UnbanRequest
	if err := readBody(r, &req); err != nil {
		return nil, err
	}
	return d.guard.Unban(req)
}

func (d *daemon) apiAllow(r *http.Request) (any, error) {
	var req guard.AllowRequest
	if err := readBody(r, &req); err != nil {
		return nil, err
	}
	if req.Login == "" {
		if _, err := guard.ParsePrefix(req.Target); err != nil {
			return nil, badRequest{fmt.Errorf("%w; host names belong into allowed-ip, logins after --login", err)}
		}
	}
	return d.guard.Allow(req)
}

// A disallowRequest names the allow entry to take away again.
type disallowRequest struct {
	Target string `json:"target"`
}

// A disallowed tells how many entries went.
type disallowed struct {
	Removed int `json:"removed"`
}

func (d *daemon) apiDisallow(r *http.Request) (any, error) {
	var req disallowRequest
	if err := readBody(r, &req); err != nil {
		return nil, err
	}
	n, err := d.guard.Disallow(req.Target)
	return disallowed{n}, err
}

func (d *daemon) apiWhy(r *http.Request) (any, error) {
	target := r.URL.Query().Get("target")
	if target == "" {
		return nil, badRequest{errors.New("name a target: an address, a network or a login")}
	}
	return d.guard.Why(target)
}

// maxTop bounds the lists of GET /v1/top.
const maxTop = 10000

func (d *daemon) apiTop(r *http.Request) (any, error) {
	n, err := numberParam(r.URL.Query(), "n", 10, maxTop)
	if err != nil {
		return nil, err
	}
	top := d.guard.Top(n)
	top.Addresses, top.Networks, top.Logins = orEmpty(top.Addresses), orEmpty(top.Networks), orEmpty(top.Logins)
	return top, nil
}

func numberParam(q url.Values, key string, otherwise, most int) (int, error) {
	if q.Get(key) == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(q.Get(key))
	if err != nil || n < 1 || n > most {
		return 0, badRequest{fmt.Errorf("%s = %q is not a number from 1 to %d", key, q.Get(key), most)}
	}
	return n, nil
}

// A reloaded is the answer to POST /v1/reload.
type reloaded struct {
	Config string `json:"config"`
}

func (d *daemon) apiReload(*http.Request) (any, error) {
	if err := d.reload(); err != nil {
		return nil, err
	}
	return reloaded{d.file}, nil
}

// followBuffer is how many events a slow reader of the events may fall behind;
// what comes then is lost to it, and it is told how much.
const followBuffer = 4096

// A lostEvents line stands in the stream of events, and in the event log, where
// some are missing.
type lostEvents struct {
	Time time.Time `json:"time,omitzero"`
	Lost int64     `json:"lost"`
}

// apiEvents streams events, one JSON value a line: the latest, and those that
// come until the client leaves or the program ends.
func (d *daemon) apiEvents(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	past := 0
	if q.Has("past") {
		var err error
		if past, err = numberParam(q, "past", 0, recentEvents); err != nil {
			writeAPIError(w, err)
			return
		}
	}
	events := make(chan guard.News, followBuffer)
	var lost atomic.Int64
	latest, stop := d.events.follow(past, func(e *guard.News) {
		select {
		case events <- *e:
		default:
			lost.Add(1)
		}
	})
	defer stop()
	w.Header().Set("Content-Type", "application/x-ndjson")
	out, flush := json.NewEncoder(w), http.NewResponseController(w)
	for _, e := range latest {
		if err := out.Encode(e); err != nil {
			return
		}
	}
	if q.Get("follow") == "false" {
		return
	}
	for {
		if err := flush.Flush(); err != nil {
			return
		}
		select {
		case e := <-events:
			if n := lost.Swap(0); n > 0 {
				_ = out.Encode(lostEvents{time.Now(), n})
			}
			if err := out.Encode(e); err != nil {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}
