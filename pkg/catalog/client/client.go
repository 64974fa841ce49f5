// SPDX-License-Identifier: Apache-2.0

// Package client talks to the catalog's REST API. Every operation may be
// repeated safely, writes included, so all of them are retried with growing
// pauses until the context ends or the attempts are used up.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/compare"
	"github.com/spotbench/spotbench/pkg/catalog/filter"
	"github.com/spotbench/spotbench/pkg/version"
)

// Audience is the audience of the ServiceAccount tokens that writes need.
const Audience = "spotbench-catalog"

// TokenSource gives the bearer token of a request; an empty token is not sent.
type TokenSource func(ctx context.Context) (string, error)

// Client is safe for concurrent use.
type Client struct {
	base  string
	http  *http.Client
	token TokenSource

	attempts uint64
	pause    time.Duration
	wrote    written
}

// New makes a client of the catalog at baseURL, for example
// https://api-service.model-catalog.svc:8000. httpClient carries the catalog's CA
// and a timeout (nil: one minute and the system's CAs); token may be nil for a
// client that only reads, where reads are open.
func New(baseURL string, httpClient *http.Client, token TokenSource) (*Client, error) {
	u, err := url.Parse(baseURL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("catalog URL %q is no http(s) address; use for example https://api-service.model-catalog.svc:8000", baseURL)
	}
	if httpClient == nil {
		httpClient = &http.Client{Timeout: time.Minute}
	}
	return &Client{base: strings.TrimSuffix(u.String(), "/"), http: httpClient, token: token, attempts: 5, pause: 200 * time.Millisecond}, nil
}

// SetRetries changes how often a call is tried (1: never again) and the pause
// before the second attempt, which doubles. Call it before the first use.
func (c *Client) SetRetries(attempts int, pause time.Duration) {
	c.attempts, c.pause = uint64(max(attempts, 1)), max(pause, time.Millisecond)
}

// Error is an answer of the catalog that was not what was asked for.
type Error struct {
	// Status is the HTTP status code; Title and Detail are the problem's (RFC 9457).
	Status int    `json:"status"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Errors []struct {
		Message  string `json:"message"`
		Location string `json:"location"`
	} `json:"errors"`
	Operation string `json:"-"`
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "catalog: %s: %d %s", e.Operation, e.Status, http.StatusText(e.Status))
	if e.Detail != "" {
		b.WriteString(": " + e.Detail)
	}
	for _, d := range e.Errors {
		b.WriteString("; " + d.Message)
		if d.Location != "" {
			b.WriteString(" (" + d.Location + ")")
		}
	}
	return b.String()
}

// IsStatus reports whether err is the catalog's answer with that status code.
func IsStatus(err error, status int) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == status
}

// Permanent reports whether trying again later cannot help: the catalog
// understood the request and refuses its content. What a spool holds may then be
// set aside. Missing or refused credentials are not permanent, nor is a run that
// is not there yet.
func Permanent(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Status {
	case http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return true
	}
	return false
}

// retryable says whether the same request may succeed soon.
func (e *Error) retryable() bool {
	return e.Status == http.StatusTooManyRequests || e.Status == http.StatusRequestTimeout || e.Status >= 500
}

const maxAnswer = 64 << 20

// do sends one request, again while that may help, and decodes the answer into out.
func (c *Client) do(ctx context.Context, method, path string, body []byte, out any) error {
	operation := method + " " + path
	policy := backoff.NewExponentialBackOff(backoff.WithInitialInterval(c.pause), backoff.WithMaxInterval(10*time.Second), backoff.WithMaxElapsedTime(0))
	var last error
	err := backoff.Retry(func() error {
		last = c.once(ctx, operation, method, path, body, out)
		var e *Error
		if errors.As(last, &e) && !e.retryable() {
			return backoff.Permanent(last)
		}
		return last
	}, backoff.WithContext(backoff.WithMaxRetries(policy, c.attempts-1), ctx))
	if err != nil && last != nil && !errors.Is(err, last) {
		return fmt.Errorf("%w (gave up: %w)", last, err)
	}
	return err
}

func (c *Client) once(ctx context.Context, operation, method, path string, body []byte, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return backoff.Permanent(fmt.Errorf("catalog: %s: %w", operation, err))
	}
	req.Header.Set("User-Agent", "spotbench/"+version.Release())
	req.Header.Set("Accept", "application/json, application/problem+json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	// A read shows it only where nobody listens: plain HTTP is for catalogs whose reads are open.
	if c.token != nil && (method != http.MethodGet || req.URL.Scheme == "https") {
		token, err := c.token(ctx)
		if err != nil {
			return fmt.Errorf("catalog: %s: token: %w", operation, err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
	}
	if position := c.wrote.position(); method == http.MethodGet && position != "" {
		req.Header.Set(positionHeader, position)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("catalog: %s: %w", operation, err)
	}
	defer resp.Body.Close()
	c.wrote.note(resp.Header.Get(positionHeader))
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("catalog: %s: answer: %w", operation, err)
	}
	if resp.StatusCode >= 300 {
		problem := &Error{Operation: operation}
		_ = json.Unmarshal(data, problem) // a proxy's answer is no problem document; its status says enough
		problem.Status = resp.StatusCode
		return problem
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("catalog: %s: answer is not the JSON expected: %w", operation, err)
	}
	return nil
}

func runPath(key string) string { return "/v1/runs/" + url.PathEscape(key) }

func send[T any](ctx context.Context, c *Client, path string, value T) (T, error) {
	var out T
	body, err := json.Marshal(value)
	if err != nil {
		return out, fmt.Errorf("catalog: PUT %s: %w", path, err)
	}
	err = c.do(ctx, http.MethodPut, path, body, &out)
	return out, err
}

func query(path string, values url.Values) string {
	if len(values) == 0 {
		return path
	}
	return path + "?" + values.Encode()
}

func setString(v url.Values, name, value string) {
	if value != "" {
		v.Set(name, value)
	}
}

// PutRun creates the run or updates it: fields left empty keep their value.
func (c *Client) PutRun(ctx context.Context, key string, run catalog.Run) (catalog.Run, error) {
	return send(ctx, c, runPath(key), run)
}

// PutSegment tells of one pod's stretch of a run that exists.
func (c *Client) PutSegment(ctx context.Context, key, podUID string, segment catalog.Segment) (catalog.Segment, error) {
	return send(ctx, c, runPath(key)+"/segments/"+url.PathEscape(podUID), segment)
}

// PutInterruption tells what is known so far about an interruption of a run that exists.
func (c *Client) PutInterruption(ctx context.Context, key, noticeID string, interruption catalog.Interruption) (catalog.Interruption, error) {
	return send(ctx, c, runPath(key)+"/interruptions/"+url.PathEscape(noticeID), interruption)
}

// PutTelemetry replaces the summary of a pod's GPUs, of a run that exists.
func (c *Client) PutTelemetry(ctx context.Context, key, podUID string, telemetry catalog.Telemetry) (catalog.Telemetry, error) {
	return send(ctx, c, runPath(key)+"/telemetry/"+url.PathEscape(podUID), telemetry)
}

// Import takes in a result file of a run that exists. The same content again
// gives the same import.
func (c *Client) Import(ctx context.Context, key, file string, content []byte) (catalog.Import, error) {
	v := url.Values{"run": {key}}
	setString(v, "file", file)
	var out catalog.Import
	err := c.do(ctx, http.MethodPost, query("/v1/imports", v), content, &out)
	return out, err
}

// GetRun is a run with all its parts.
func (c *Client) GetRun(ctx context.Context, key string) (catalog.Detail, error) {
	var out catalog.Detail
	err := c.do(ctx, http.MethodGet, runPath(key), nil, &out)
	return out, err
}

// GetTelemetry is the telemetry of a run, one entry per pod.
func (c *Client) GetTelemetry(ctx context.Context, key string) ([]catalog.Telemetry, error) {
	var out catalog.Page[catalog.Telemetry]
	err := c.do(ctx, http.MethodGet, runPath(key)+"/telemetry", nil, &out)
	return out.Items, err
}

// list is one answer to a filter.
func list[T any](ctx context.Context, c *Client, path string, by any) (T, error) {
	var out T
	err := c.do(ctx, http.MethodGet, query(path, filter.Encode(by)), nil, &out)
	return out, err
}

// ListRuns is one page of runs, the newest first.
func (c *Client) ListRuns(ctx context.Context, f filter.RunList) (catalog.Page[catalog.Summary], error) {
	return list[catalog.Page[catalog.Summary]](ctx, c, "/v1/runs", &f)
}

// ListResults is one page of results, the newest first.
func (c *Client) ListResults(ctx context.Context, f filter.ResultList) (catalog.Page[catalog.Result], error) {
	return list[catalog.Page[catalog.Result]](ctx, c, "/v1/results", &f)
}

// ListInterruptions is one page of interruptions, the newest first.
func (c *Client) ListInterruptions(ctx context.Context, f filter.InterruptionList) (catalog.Page[catalog.Interruption], error) {
	return list[catalog.Page[catalog.Interruption]](ctx, c, "/v1/interruptions", &f)
}

// Compare sets runs or configurations beside each other.
func (c *Client) Compare(ctx context.Context, f filter.Comparison) (compare.Report, error) {
	return list[compare.Report](ctx, c, "/v1/compare", &f)
}

// Pareto is the choices between throughput, latency and cost.
func (c *Client) Pareto(ctx context.Context, f filter.Pareto) (compare.Frontier, error) {
	return list[compare.Frontier](ctx, c, "/v1/pareto", &f)
}

// Regressions is what newer versions made worse.
func (c *Client) Regressions(ctx context.Context, f filter.Regressions) (compare.Regressions, error) {
	return list[compare.Regressions](ctx, c, "/v1/regressions", &f)
}

// ListModels is every model that has runs.
func (c *Client) ListModels(ctx context.Context) ([]catalog.Model, error) {
	var out catalog.Page[catalog.Model]
	err := c.do(ctx, http.MethodGet, "/v1/models", nil, &out)
	return out.Items, err
}

// PutInstance tells of the life of a machine.
func (c *Client) PutInstance(ctx context.Context, uid string, instance catalog.Instance) (catalog.Instance, error) {
	return send(ctx, c, "/v1/instances/"+url.PathEscape(uid), instance)
}

// ListInstances is one page of machines, the youngest first.
func (c *Client) ListInstances(ctx context.Context, f filter.InstanceList) (catalog.Page[catalog.Instance], error) {
	return list[catalog.Page[catalog.Instance]](ctx, c, "/v1/instances", &f)
}

// ListRisks is how likely machines of each pool are taken back, as learned from
// those that were observed.
func (c *Client) ListRisks(ctx context.Context) ([]catalog.PoolRisk, error) {
	var page catalog.Page[catalog.PoolRisk]
	err := c.do(ctx, http.MethodGet, "/v1/risk", nil, &page)
	return page.Items, err
}

// Savings is what spot capacity saved.
func (c *Client) Savings(ctx context.Context, q catalog.SavingsQuery) (catalog.SavingsReport, error) {
	values := url.Values{}
	setString(values, "by", string(q.By))
	setString(values, "model", q.Model)
	setString(values, "namespace", q.Namespace)
	for name, t := range map[string]time.Time{"from": q.From, "to": q.To} {
		if !t.IsZero() {
			values.Set(name, t.UTC().Format(time.RFC3339Nano))
		}
	}
	var report catalog.SavingsReport
	err := c.do(ctx, http.MethodGet, query("/v1/savings", values), nil, &report)
	return report, err
}
