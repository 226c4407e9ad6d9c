package main

import (
	"context"
	"crypto/tls"
	"fmt"
)

// A row is one line of the table: a load, and what to look at.
type row struct {
	name  string
	about string
	// service is what the products must carry.
	service service
	// workers is how many connections there are at a time.
	workers int
	work    worker
	metrics []metric
	// only, if not empty, are the products that the row is about.
	only []string
	// cores is how many threads the products get; 0 is as many as there are.
	cores int
	// few is set on rows that show how cost grows: three rounds suffice.
	few bool
	// whole, if set, does the row in a way of its own.
	whole func(context.Context, *bench, *row) error
}

// A metric is a figure that a row gives.
type metric struct {
	name string
	unit string
	// of takes it from a sample.
	of func(sample) float64
	// more tells that more is better.
	more bool
	// ofProxy tells that it is about the proxy's processes, so that going
	// direct has none.
	ofProxy bool
	// reach is the target, for the reader.
	reach string
}

func cpuPerOp(reach string) metric {
	return metric{"CPU", "µs each", func(s sample) float64 {
		return float64(s.CPU.Microseconds()) / float64(s.Ops)
	}, false, true, reach}
}

func cpuPerMB(reach string) metric {
	return metric{"CPU", "ms/MB", func(s sample) float64 {
		return 1000 * s.CPU.Seconds() / (float64(s.Bytes) / 1e6)
	}, false, true, reach}
}

func opsRate(reach string) metric {
	return metric{"rate", "per s", func(s sample) float64 { return float64(s.Ops) / s.Seconds }, true, false, reach}
}

func byteRate(reach string) metric {
	return metric{"rate", "MB/s", func(s sample) float64 { return float64(s.Bytes) / 1e6 / s.Seconds }, true, false, reach}
}

// rows are all rows, in the order of the table; those that mostly wait last, so
// that the limit costs least.
func (b *bench) rows() []row {
	ecdsa, rsa := clientTLS(certECDSA), clientTLS(certRSA)
	postQuantum := clientTLS(certECDSA, tls.X25519MLKEM768)
	page, file := text(4<<10), attachment(1<<20)
	const many = 8
	// How cost grows is shown beside the two fastest peers.
	growing := []string{nameMailreeve, "haproxy", "nginx-stream"}
	all := []row{
		{name: "smtp-4k", about: "SMTP, 4 KiB messages", service: smtp, workers: many,
			work: sendMail(page, nil, false), metrics: []metric{cpuPerOp("≤ 64"), opsRate("")}},
		{name: "smtp-4k-one", about: "SMTP, 4 KiB, one a connection", service: smtp, workers: many,
			work: sendMail(page, nil, true), metrics: []metric{cpuPerOp(""), opsRate("")}},
		{name: "smtps-4k", about: "SMTPS, 4 KiB messages", service: smtps, workers: many,
			work: sendMail(page, ecdsa, false), metrics: []metric{cpuPerOp("≤ 90"), opsRate("")}},
		{name: "smtps-4k-one", about: "SMTPS, 4 KiB, one a connection (ECDSA)", service: smtps, workers: many,
			work: sendMail(page, ecdsa, true), metrics: []metric{cpuPerOp("≤ 800"), opsRate("")}},
		{name: "smtp-1m", about: "SMTP, 1 MiB messages", service: smtp, workers: many,
			work: sendMail(file, nil, false), metrics: []metric{byteRate("≥ 1.0×"), cpuPerMB("≤ 0.8×")}},
		{name: "smtps-1m", about: "SMTPS, 1 MiB messages", service: smtps, workers: many,
			work: sendMail(file, ecdsa, false), metrics: []metric{byteRate("≥ 1.0×"), cpuPerMB("")}},
		{name: "smtp-1m-text", about: "SMTP, 1 MiB messages, all text", service: smtp, workers: many, few: true, only: growing,
			work: sendMail(text(1<<20), nil, false), metrics: []metric{byteRate(""), cpuPerMB("")}},
		{name: "imaps-login", about: "IMAPS, connect, login, logout", service: imaps, workers: many,
			work: logIn(ecdsa), metrics: []metric{cpuPerOp("≤ 750"), opsRate("")}},
		{name: "imap-download", about: "IMAP download", service: imap, workers: many,
			work: download(nil), metrics: []metric{cpuPerMB("≤ 0.2"), byteRate("")}},
		{name: "imaps-download", about: "IMAPS download", service: imaps, workers: many,
			work: download(ecdsa), metrics: []metric{cpuPerMB("≤ 0.9×"), byteRate("")}},
		{name: "round-trip", about: "round trip over TLS", service: imaps, whole: roundTripRow},
		{name: "refused", about: "banned connection, refused at accept", service: smtp, workers: 4,
			work: knock, metrics: []metric{cpuPerOp("≤ 14"), opsRate("")}},
		{name: "refused-kernel", about: "banned connection, kernel filter", service: smtp, workers: 2,
			work: knockUnheard, whole: kernelFilterRow, metrics: []metric{cpuPerOp("0"), opsRate("")}},
		{name: "imaps-login-rsa", about: "IMAPS login, RSA-2048 key", service: imapsRSA, workers: many,
			work: logIn(rsa), metrics: []metric{cpuPerOp(""), opsRate("")}, few: true},
		{name: "imaps-login-pq", about: "IMAPS login, X25519MLKEM768", service: imaps, workers: many,
			work: logIn(postQuantum), metrics: []metric{cpuPerOp(""), opsRate("")}, few: true, only: []string{nameMailreeve}},
	}
	for _, n := range []int{1, 64} {
		all = append(all, row{name: fmt.Sprintf("smtps-4k-c%d", n), few: true, only: growing,
			about:   fmt.Sprintf("SMTPS, 4 KiB messages, %d connections", n),
			service: smtps, workers: n, work: sendMail(page, ecdsa, false),
			metrics: []metric{cpuPerOp(""), opsRate("")}})
	}
	for _, kib := range []int{1, 32, 256, 8192} {
		message := text(kib << 10)
		if kib >= 256 {
			message = attachment(kib << 10)
		}
		all = append(all, row{name: fmt.Sprintf("smtps-%dk", kib), few: true, only: growing,
			about:   fmt.Sprintf("SMTPS, %d KiB messages", kib),
			service: smtps, workers: many, work: sendMail(message, ecdsa, false),
			metrics: []metric{cpuPerOp(""), byteRate("")}})
	}
	all = append(all,
		row{name: "smtps-4k-1core", about: "SMTPS, 4 KiB messages, proxy on one core", few: true, only: growing, cores: 1,
			service: smtps, workers: many, work: sendMail(page, ecdsa, false), metrics: []metric{cpuPerOp(""), opsRate("")}},
		row{name: "imaps-login-1core", about: "IMAPS login, proxy on one core", few: true, only: growing, cores: 1,
			service: imaps, workers: many, work: logIn(ecdsa), metrics: []metric{cpuPerOp(""), opsRate("")}},
		row{name: "overshoot", about: "Nth failure to enforced ban", service: imap, whole: overshootRow},
		row{name: "idle", about: "idle IMAPS connections", service: imaps, whole: idleRow},
		row{name: "bans", about: "bans loaded", whole: bansRow},
	)
	return all
}

// concerns tells whether a product has a place in the row.
func (r *row) concerns(p *product) bool {
	if len(r.only) > 0 {
		found := false
		for _, name := range r.only {
			found = found || name == p.name
		}
		if !found {
			return false
		}
	}
	if r.name == "refused" && !p.refuses {
		return false
	}
	return p.carries(r.service)
}
