// SPDX-License-Identifier: Apache-2.0

// Package web is the catalog for people: runs, models, comparisons, the choices
// between throughput, latency and cost, the fleet and what it saves. It is rendered on the server, needs no JavaScript, and loads nothing
// from elsewhere.
package web

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/risk"
)

//go:embed templates/*.html assets/*
var files embed.FS

// Reader is what the pages are made from.
type Reader interface {
	ListRuns(ctx context.Context, query catalog.RunQuery) (catalog.Page[catalog.Summary], error)
	// GetRun is catalog.ErrNotFound for a run that is not there.
	GetRun(ctx context.Context, key string) (catalog.Detail, error)
	// GetTelemetry is that of a run, with how it went over time.
	GetTelemetry(ctx context.Context, key string) ([]catalog.Telemetry, error)
	ListModels(ctx context.Context) ([]catalog.Model, error)
	Measured(ctx context.Context, keys []string, query catalog.RunQuery) (runs []catalog.Detail, more bool, err error)
	ListInstances(ctx context.Context, query catalog.InstanceQuery) (catalog.Page[catalog.Instance], error)
	Lives(ctx context.Context, since time.Time) ([]catalog.Instance, error)
	Savings(ctx context.Context, query catalog.SavingsQuery) (catalog.SavingsReport, error)
}

// runsPerPage is the length of the list.
const runsPerPage = 50

// policy lets the pages load the style and the icon of this server, and nothing else.
const policy = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// Handler serves the pages.
type Handler struct {
	reader  Reader
	hazards risk.Book
	log     *slog.Logger
	now     func() time.Time
	mux     *http.ServeMux
	pages   map[string]*template.Template
}

// New makes the handler for the patterns below. The hazards are assumed of pools
// until their machines have been observed. The log gets what goes wrong
// underneath; the reader of the page is told less.
func New(reader Reader, hazards risk.Book, log *slog.Logger) *Handler {
	h := &Handler{reader: reader, hazards: hazards, log: log, now: time.Now, mux: http.NewServeMux(), pages: map[string]*template.Template{}}
	for _, name := range []string{"runs", "run", "models", "model", "compare", "pareto", "fleet", "savings", "fault"} {
		h.pages[name] = template.Must(template.New("layout.html").Funcs(functions).ParseFS(files, "templates/layout.html", "templates/figures.html", "templates/"+name+".html"))
	}
	serve := map[string]http.HandlerFunc{"GET /{$}": h.serveRuns, "GET /runs/{key}": h.serveRun, "GET /models": h.serveModels, "GET /models/{name}": h.serveModel,
		"GET /compare": h.serveCompare, "GET /pareto": h.servePareto, "GET /fleet": h.serveFleet, "GET /savings": h.serveSavings, "GET /assets/{file}": h.serveAsset}
	for _, pattern := range Patterns {
		h.mux.HandleFunc(pattern, serve[pattern])
	}
	return h
}

// Patterns are the routes of the pages, for the mux that they are mounted on.
var Patterns = []string{"GET /{$}", "GET /runs/{key}", "GET /models", "GET /models/{name}", "GET /compare", "GET /pareto", "GET /fleet", "GET /savings", "GET /assets/{file}"}

// page is what every page has.
type page struct {
	Title string
	// Nav is the entry of the navigation that the page is.
	Nav string
}

// ServeHTTP serves a page.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// PathOf is the path of a run's page.
func PathOf(key string) string { return "/runs/" + url.PathEscape(key) }

func (h *Handler) serveRuns(w http.ResponseWriter, r *http.Request) {
	values := r.URL.Query()
	query := catalog.RunQuery{Model: values.Get("model"), Status: catalog.Status(values.Get("status")), PageToken: values.Get("pageToken"), Limit: runsPerPage}
	page, err := h.reader.ListRuns(r.Context(), query)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	models, err := h.reader.ListModels(r.Context())
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.render(w, r, "runs", http.StatusOK, newRunsView(query, page, models))
}

func (h *Handler) serveRun(w http.ResponseWriter, r *http.Request) {
	detail, err := h.reader.GetRun(r.Context(), r.PathValue("key"))
	if err != nil {
		h.fail(w, r, err)
		return
	}
	// A run without telemetry is asked for nothing.
	var telemetry []catalog.Telemetry
	if len(detail.Telemetry) > 0 {
		if telemetry, err = h.reader.GetTelemetry(r.Context(), detail.Key); err != nil {
			h.fail(w, r, err)
			return
		}
	}
	h.render(w, r, "run", http.StatusOK, newRunView(detail, telemetry, h.now()))
}

// faultView is the page for what cannot be shown.
type faultView struct {
	page
	Heading, Text string
}

func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, catalog.ErrNotFound):
		h.render(w, r, "fault", http.StatusNotFound, faultView{page{Title: "Not found"}, "There is no such thing", "The catalog has no " + cmp.Or(r.PathValue("key"), r.PathValue("name"), r.URL.RawQuery) + ". It may never have started, or the address has a typing error."})
	case errors.Is(err, catalog.ErrInvalid):
		h.render(w, r, "fault", http.StatusBadRequest, faultView{page{Title: "Not understood"}, "The address is not understood", err.Error()})
	case r.Context().Err() != nil:
		return // nobody waits for it any more
	default:
		h.log.Error("a page cannot be shown", "path", r.URL.Path, "error", err)
		h.render(w, r, "fault", http.StatusServiceUnavailable, faultView{page{Title: "Unavailable"}, "The catalog cannot be read now", "Its database does not answer. Load the page again in a moment."})
	}
}

func (h *Handler) render(w http.ResponseWriter, r *http.Request, name string, status int, view any) {
	var body bytes.Buffer // so that a failure half-way is no half page
	if err := h.pages[name].Execute(&body, view); err != nil {
		h.log.Error("a page cannot be rendered", "path", r.URL.Path, "error", err)
		http.Error(w, "the page cannot be rendered", http.StatusInternalServerError)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Security-Policy", policy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "same-origin")
	header.Set("Cache-Control", "no-cache")
	w.WriteHeader(status)
	if _, err := body.WriteTo(w); err != nil {
		h.log.Debug("a page was not read to its end", "path", r.URL.Path, "error", err)
	}
}

func (h *Handler) serveAsset(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("file")
	data, err := files.ReadFile("assets/" + name)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	sum := sha256.Sum256(data)
	w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:8])+`"`)
	w.Header().Set("Cache-Control", "max-age=60")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(data))
}
