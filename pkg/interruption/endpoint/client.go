// SPDX-License-Identifier: Apache-2.0

// Package endpoint asks a cloud's metadata service over one connection, and goes on
// asking whatever the service does.
package endpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Default is where AWS, GCP and Azure all serve the metadata of an instance.
const Default = "http://169.254.169.254"

// maxBody bounds what is read of an answer, in bytes. The longest real one is
// Azure's list of events for a scale set, a few KiB.
const maxBody = 256 << 10

// Reason is why an endpoint gave no usable answer; it is a metric's label.
type Reason string

// The reasons.
const (
	Connection   Reason = "connection"   // no connection, or it broke
	Timeout      Reason = "timeout"      // no answer in time
	Unauthorized Reason = "unauthorized" // 401 and 403
	Unavailable  Reason = "unavailable"  // 429 and 5xx
	Status       Reason = "status"       // any other unexpected status
	Malformed    Reason = "malformed"    // not what the protocol says
	TooLong      Reason = "too-long"     // longer than any real answer
	Stranger     Reason = "stranger"     // somebody else's service answered
)

// Error is why an endpoint gave no usable answer.
type Error struct {
	Reason Reason
	err    error
}

func (e *Error) Error() string { return e.err.Error() }
func (e *Error) Unwrap() error { return e.err }

// Errorf makes an error of that reason.
func Errorf(reason Reason, format string, args ...any) error {
	return &Error{Reason: reason, err: fmt.Errorf(format, args...)}
}

// ReasonOf is the reason of the first endpoint error in err; Malformed if there is none.
func ReasonOf(err error) Reason {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return Malformed
}

// Silent reports whether it is likely the service as a whole, rather than one of its
// paths, that gives no answers, or that the next question would cost as much as this.
func Silent(err error) bool {
	switch ReasonOf(err) {
	case Connection, Timeout, Unauthorized, TooLong:
		return true
	default:
		return false
	}
}

// Answer is what a request was answered with.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
	// Sent and Received are when it was asked and there, by this machine's clock.
	Sent, Received time.Time
}

const (
	// leastSkew is what a clock may be off without being taken for wrong: a Date has
	// whole seconds and is made before it is read.
	leastSkew = 3 * time.Second
	// mostSkew is more than any machine's clock is off. A service that says so has the
	// wrong one itself.
	mostSkew = 24 * time.Hour
)

// ClockAhead is how far the clock of who answered is ahead of this machine's, by the
// answer's Date; 0 if they agree, and if it has none that can be believed.
func (a Answer) ClockAhead() time.Duration {
	date, err := http.ParseTime(a.Header.Get("Date"))
	if err != nil {
		return 0
	}
	// A Date is cut to whole seconds: on the average half of one is missing.
	ahead := date.Add(time.Second / 2).Sub(a.Received)
	if ahead < 0 {
		// An answer that took its time looks like a clock that is behind, which would make
		// a deadline later than it is: only what was behind already at the question counts.
		ahead = min(0, date.Add(time.Second).Sub(a.Sent))
	}
	if ahead.Abs() < leastSkew || ahead.Abs() > mostSkew {
		return 0
	}
	return ahead
}

// Unexpected is the error for an answer whose status the protocol does not foresee.
func (a Answer) Unexpected(what string) error {
	reason := Status
	switch {
	case a.Status == http.StatusUnauthorized || a.Status == http.StatusForbidden:
		reason = Unauthorized
	case a.Status == http.StatusTooManyRequests || a.Status >= http.StatusInternalServerError:
		reason = Unavailable
	}
	return Errorf(reason, "%s: HTTP %d", what, a.Status)
}

// Request is one question.
type Request struct {
	Method, Path string
	Header       map[string]string
	Body         []byte
	// Timeout is for the whole exchange.
	Timeout time.Duration
}

// Client asks one service, over one connection that is kept.
type Client struct {
	base string
	http *http.Client
}

// NewClient makes a client; transport is nil but in tests without a network.
func NewClient(base string, transport http.RoundTripper) (*Client, error) {
	if base == "" {
		base = Default
	}
	if u, err := url.Parse(base); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("metadata endpoint %q is not a URL; use for example %s", base, Default)
	}
	if transport == nil {
		// No proxy: the address is link-local.
		transport = &http.Transport{
			DialContext:            (&net.Dialer{Timeout: time.Second}).DialContext,
			MaxConnsPerHost:        1,
			MaxIdleConnsPerHost:    1,
			DisableCompression:     true,
			MaxResponseHeaderBytes: 64 << 10,
		}
	}
	return &Client{base: strings.TrimSuffix(base, "/"), http: &http.Client{
		Transport: transport,
		// A metadata service never redirects; a captive portal does.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Do asks. Every answer is read to its end, whatever its status: a connection with an
// unread body cannot be used again.
func (c *Client) Do(ctx context.Context, r Request) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, r.Method, c.base+r.Path, bytes.NewReader(r.Body))
	if err != nil {
		return Answer{}, err
	}
	for name, value := range r.Header {
		req.Header.Set(name, value)
	}
	sent := time.Now()
	resp, err := c.http.Do(req)
	if err != nil {
		return Answer{}, lost(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return Answer{}, lost(fmt.Errorf("%s %s: %w", r.Method, r.Path, err))
	}
	if len(body) > maxBody {
		return Answer{}, Errorf(TooLong, "%s %s: HTTP %d and more than %d bytes", r.Method, r.Path, resp.StatusCode, maxBody)
	}
	return Answer{Status: resp.StatusCode, Header: resp.Header, Body: body, Sent: sent, Received: time.Now()}, nil
}

// Get asks for path.
func (c *Client) Get(ctx context.Context, path string, timeout time.Duration, header map[string]string) (Answer, error) {
	return c.Do(ctx, Request{Method: http.MethodGet, Path: path, Header: header, Timeout: timeout})
}

// Close ends the connection.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func lost(err error) error {
	var timeout net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() {
		return &Error{Reason: Timeout, err: err}
	}
	return &Error{Reason: Connection, err: err}
}
