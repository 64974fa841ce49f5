// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/auth"
	"github.com/spotbench/spotbench/pkg/risk"
	"github.com/spotbench/spotbench/pkg/version"
)

// metrics are what the API counts.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	imports  *prometheus.CounterVec
	denied   *prometheus.CounterVec
}

func newMetrics(registry prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "spotbench_catalog_http_requests_total", Help: "Requests answered, by route and status code."}, []string{"route", "code"}),
		seconds:  prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "spotbench_catalog_http_request_seconds", Help: "Time to answer a request, seconds.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 8)}, []string{"route"}),
		imports:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "spotbench_catalog_imports_total", Help: "Result files: created, repeated or refused."}, []string{"outcome"}),
		denied:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "spotbench_catalog_writes_denied_total", Help: "Writes that the guard did not let in, by reason."}, []string{"reason"}),
	}
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "spotbench_build_info", Help: "Always 1; the label is the build."}, []string{"version"})
	info.WithLabelValues(version.Release()).Set(1)
	registry.MustRegister(m.requests, m.seconds, m.imports, m.denied, info)
	return m
}

// Cache keeps answers to reads; matches tells whether an If-None-Match names an ETag.
type Cache interface {
	Handler(next http.Handler, matches func(header, tag string) bool) http.Handler
}

// Options are the parts of a server.
type Options struct {
	Store    Store
	Guard    Guard
	Log      *slog.Logger
	Registry *prometheus.Registry
	// Readers says that reads need a caller who may read; without, they are open.
	Readers bool
	// Limits bounds how often each caller may ask; nil is no bound.
	Limits *auth.Limits
	// Guesses bounds how often tokens that are not valid are looked at from each address;
	// nil is no bound.
	Guesses *auth.Limits
	// Cache answers reads from what it kept; nil is none.
	Cache Cache
	// Hazards are assumed of pools until their machines have been observed.
	Hazards risk.Book
	// Pages shows the catalog to people, on these patterns of the mux.
	Pages        http.Handler
	PagePatterns []string
}

// New is the whole server: API, pages, health and metrics.
func New(o Options) http.Handler {
	mux := http.NewServeMux()
	a := &api{store: o.Store, guard: o.Guard, log: o.Log, metrics: newMetrics(o.Registry), hazards: o.Hazards, readers: o.Readers, limits: o.Limits, guesses: o.Guesses,
		receiving: make(turns, receivedAtOnce), reading: make(turns, readAtOnce)}
	a.register(mux)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", a.ready)
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.Registry, promhttp.HandlerOpts{}))
	for _, pattern := range o.PagePatterns {
		mux.Handle(pattern, o.Pages)
	}
	answers := tagged(mux)
	if o.Cache != nil {
		answers = forAll(o.Cache.Handler(answers, matches), answers)
	}
	return a.observe(mux, answers)
}

// forAll has reads of callers who may see all runs answered by one handler, and those of
// the others by another: what is kept for all must not reach them.
func forAll(kept, fresh http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if read := r.Method == http.MethodGet || r.Method == http.MethodHead; read && catalog.NamespacesOf(r.Context()).Limited() {
			fresh.ServeHTTP(w, r)
			return
		}
		kept.ServeHTTP(w, r)
	})
}

// ReadOnly is the handler without anything that writes, and without what only an
// administrator may read: it is for plain HTTP, which shows tokens to whoever listens.
func ReadOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			writeProblem(w, http.StatusMethodNotAllowed, "this address only answers reads; write to the catalog's TLS address")
			return
		}
		if strings.HasPrefix(r.URL.Path, "/v1/keys") || strings.HasPrefix(r.URL.Path, "/v1/audit") {
			writeProblem(w, http.StatusForbidden, "this address does not answer administrators; ask the catalog's TLS address")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (a *api) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 3*time.Second)
	defer cancel()
	if err := a.store.Ping(ctx); err != nil {
		a.log.Warn("not ready", "err", err)
		writeProblem(w, http.StatusServiceUnavailable, "the database does not answer")
		return
	}
	fmt.Fprintln(w, "ok")
}

// observe measures, protects against panics, sets the headers that all answers
// have, and makes problems of the mux's own refusals. answers is the mux with what is
// before it.
func (a *api) observe(mux *http.ServeMux, answers http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		state := &catalog.Session{Seen: r.Header.Get(positionHeader)}
		answer := &recorder{ResponseWriter: w, status: http.StatusOK, session: state}
		r = r.WithContext(catalog.WithSession(r.Context(), state))
		defer func() {
			caught := recover()
			if aborted, ok := caught.(error); ok && errors.Is(aborted, http.ErrAbortHandler) {
				defer panic(caught) // the server's own way to end a connection
			} else if caught != nil {
				a.log.Error("a request panicked", "panic", caught, "stack", string(debug.Stack()))
				writeProblem(answer, http.StatusInternalServerError, "the catalog failed at this request; it is in its log")
			}
			// The pattern, not the path: there are as many paths as runs.
			route := r.Pattern
			if route == "" {
				route = "none"
			}
			a.metrics.requests.WithLabelValues(route, strconv.Itoa(answer.status)).Inc()
			a.metrics.seconds.WithLabelValues(route).Observe(time.Since(start).Seconds())
			if !a.log.Enabled(r.Context(), slog.LevelDebug) {
				return
			}
			a.log.Debug("request", "method", r.Method, "path", r.URL.EscapedPath(), "status", answer.status, "duration", time.Since(start))
		}()
		header := answer.Header()
		for _, h := range everywhere {
			header[h.name] = h.values
		}
		admitted, ok := a.admit(answer, r)
		if !ok {
			return
		}
		r = r.WithContext(admitted)
		if _, r.Pattern = mux.Handler(r); r.Pattern == "" {
			refusal := &recorder{ResponseWriter: discard{header}, status: http.StatusOK}
			mux.ServeHTTP(refusal, r)
			detail := "there is nothing at this address; the API is described at /openapi.json"
			if refusal.status == http.StatusMethodNotAllowed {
				detail = "this address does not take " + r.Method + "; it takes " + header.Get("Allow")
			}
			writeProblem(answer, refusal.status, detail)
			return
		}
		answers.ServeHTTP(answer, r)
	})
}

// everywhere are the headers that all answers have. They are shared, and replaced
// where a page has others.
var everywhere = []struct {
	name   string
	values []string
}{
	{"X-Content-Type-Options", []string{"nosniff"}},
	{"X-Frame-Options", []string{"DENY"}},
	{"Referrer-Policy", []string{"no-referrer"}},
	{"Content-Security-Policy", []string{"default-src 'none'; frame-ancestors 'none'"}},
}

// positionHeader is where a write left the database. A caller that sends it back
// with a read sees its write, whichever replica answers.
const positionHeader = "Catalog-Position"

// recorder notes the status of an answer.
type recorder struct {
	http.ResponseWriter
	status  int
	session *catalog.Session
}

func (r *recorder) WriteHeader(status int) {
	if r.session != nil {
		if position := r.session.Position(); position != "" {
			r.Header().Set(positionHeader, position)
		}
	}
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the connection's deadlines.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// discard keeps the headers of an answer and nothing else of it.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}

// writeProblem answers with a problem document (RFC 9457).
func writeProblem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"title": http.StatusText(status), "status": status, "detail": detail}) // the caller is gone if this fails
}
