// SPDX-License-Identifier: Apache-2.0

// Package simllm is a SIMULATED language model behind the OpenAI HTTP API: it
// streams meaningless tokens at a set pace. It stands in for a real inference
// server where there is no GPU, so that everything around one (client,
// checkpoint, placement, catalog) can be the real thing. It says that it is
// simulated in its log, its list of models and every answer's fingerprint.
package simllm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/spotbench/spotbench/pkg/probes"
)

// Fingerprint is the system_fingerprint of every answer.
const Fingerprint = "SIMULATED-spotbench-sim-llm"

const (
	maxBody   = 16 << 20
	maxTokens = 1 << 17
	// defaultMaxTokens is OpenAI's own default for /v1/completions.
	defaultMaxTokens = 16
)

// Config says what to simulate.
type Config struct {
	// Model is the name the server answers to.
	Model string
	Pace  Pace
	// MaxConcurrency is how many requests are answered at a time; more wait, as in
	// an engine's queue.
	MaxConcurrency int
}

// Validate names each wrong flag, its value and what would be right.
func (c Config) Validate() error {
	var problems []error
	if c.Model == "" {
		problems = append(problems, errors.New(`--model "": name the model to answer as, for example mistralai/Mistral-7B-Instruct-v0.3`))
	}
	if c.MaxConcurrency < 1 || c.MaxConcurrency > 65536 {
		problems = append(problems, fmt.Errorf("--max-concurrency %d: must be between 1 and 65536, for example 64", c.MaxConcurrency))
	}
	return errors.Join(append(problems, c.Pace.Validate())...)
}

// Server is the HTTP handler.
type Server struct {
	cfg     Config
	mux     *http.ServeMux
	slots   chan struct{}
	served  atomic.Uint64
	started time.Time
	metrics metrics
}

type metrics struct {
	running, waiting prometheus.Gauge
	tokens           *prometheus.CounterVec
	requests         *prometheus.CounterVec
}

// New makes the server; its metrics go to reg. The error names what is wrong in cfg.
func New(cfg Config, reg *prometheus.Registry) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	factory := promauto.With(reg)
	s := &Server{
		cfg: cfg, mux: http.NewServeMux(), slots: make(chan struct{}, cfg.MaxConcurrency), started: time.Now(),
		metrics: metrics{
			running: factory.NewGauge(prometheus.GaugeOpts{Name: "spotbench_simllm_requests_running", Help: "Requests being answered by the simulated model."}),
			waiting: factory.NewGauge(prometheus.GaugeOpts{Name: "spotbench_simllm_requests_waiting", Help: "Requests waiting for a slot of the simulated model."}),
			tokens: factory.NewCounterVec(prometheus.CounterOpts{Name: "spotbench_simllm_tokens_total", Help: "Simulated tokens, read (prompt) and made (completion)."},
				[]string{"kind"}),
			requests: factory.NewCounterVec(prometheus.CounterOpts{Name: "spotbench_simllm_requests_total", Help: "Requests by how they ended: finished, aborted or refused."},
				[]string{"outcome"}),
		},
	}
	probes.Handle(s.mux, reg, probes.Always)
	s.mux.HandleFunc("GET /v1/models", s.models)
	s.mux.HandleFunc("POST /v1/completions", func(w http.ResponseWriter, r *http.Request) { s.complete(w, r, textCompletion{}) })
	s.mux.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, r *http.Request) { s.complete(w, r, chatCompletion{}) })
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.refuse(w, http.StatusNotFound, "", fmt.Sprintf("no %s %s here; try GET /v1/models, POST /v1/completions or POST /v1/chat/completions", r.Method, r.URL.Path))
	})
	return s, nil
}

// ServeHTTP serves the OpenAI API, /healthz, /readyz and /metrics.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

func (s *Server) models(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": []any{map[string]any{
		"id": s.cfg.Model, "object": "model", "created": s.started.Unix(),
		"owned_by": "SIMULATED (spotbench sim-llm: no model is loaded, tokens are made up)",
	}}})
}

// request is the part of OpenAI's completion requests that the simulation heeds.
type request struct {
	Model    string          `json:"model"`
	Prompt   json.RawMessage `json:"prompt"`
	Messages []struct {
		Content json.RawMessage `json:"content"`
	} `json:"messages"`
	MaxTokens           *int `json:"max_tokens"`
	MaxCompletionTokens *int `json:"max_completion_tokens"`
	Stream              bool `json:"stream"`
	StreamOptions       struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
}

// tokensOut is how many tokens to make.
func (q request) tokensOut() int {
	switch {
	case q.MaxCompletionTokens != nil:
		return *q.MaxCompletionTokens
	case q.MaxTokens != nil:
		return *q.MaxTokens
	default:
		return defaultMaxTokens
	}
}

// tokensIn counts a prompt's words: one word is one token of this model.
func (q request) tokensIn() int {
	words := len(strings.Fields(plainText(q.Prompt)))
	for _, m := range q.Messages {
		words += len(strings.Fields(plainText(m.Content)))
	}
	return words
}

// plainText is a JSON string's value, and "" for other ways to write a prompt.
func plainText(raw json.RawMessage) string {
	var text string
	if len(raw) == 0 || json.Unmarshal(raw, &text) != nil {
		return ""
	}
	return text
}

func (s *Server) complete(w http.ResponseWriter, r *http.Request, f format) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		s.refuse(w, http.StatusRequestEntityTooLarge, "", fmt.Sprintf("cannot read the request: %v", err))
		return
	}
	var q request
	if err := json.Unmarshal(body, &q); err != nil {
		s.refuse(w, http.StatusBadRequest, "", fmt.Sprintf("the request is not the JSON of a completion: %v", err))
		return
	}
	if q.Model != s.cfg.Model {
		s.refuse(w, http.StatusNotFound, "model", fmt.Sprintf("model %q is not here; this server simulates %q", q.Model, s.cfg.Model))
		return
	}
	n := q.tokensOut()
	if n < 1 || n > maxTokens {
		s.refuse(w, http.StatusBadRequest, "max_tokens", fmt.Sprintf("max_tokens %d: must be between 1 and %d", n, maxTokens))
		return
	}
	if !s.admit(r.Context()) {
		s.metrics.requests.WithLabelValues("aborted").Inc()
		return
	}
	defer func() { s.metrics.running.Dec(); <-s.slots }()
	a := answer{
		id: f.prefix() + "-sim-" + strconv.FormatUint(s.served.Add(1), 10), model: s.cfg.Model, created: time.Now().Unix(),
		format: f, pace: s.cfg.Pace, tokens: n, prompt: q.tokensIn(), usage: q.StreamOptions.IncludeUsage,
	}
	made, err := a.send(r.Context(), w, q.Stream)
	s.metrics.tokens.WithLabelValues("prompt").Add(float64(a.prompt))
	s.metrics.tokens.WithLabelValues("completion").Add(float64(made))
	if err != nil {
		s.metrics.requests.WithLabelValues("aborted").Inc()
		return
	}
	s.metrics.requests.WithLabelValues("finished").Inc()
}

// admit waits for a slot; false means that the client went away first.
func (s *Server) admit(ctx context.Context) bool {
	s.metrics.waiting.Inc()
	defer s.metrics.waiting.Dec()
	select {
	case s.slots <- struct{}{}:
		s.metrics.running.Inc()
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *Server) refuse(w http.ResponseWriter, status int, param, message string) {
	s.metrics.requests.WithLabelValues("refused").Inc()
	writeJSON(w, status, map[string]any{"error": map[string]any{
		"message": message, "type": "invalid_request_error", "param": param, "code": strconv.Itoa(status),
	}})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// The client may be gone: there is nobody left to tell.
	_ = json.NewEncoder(w).Encode(v)
}
