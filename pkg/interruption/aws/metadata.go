// SPDX-License-Identifier: Apache-2.0

package aws

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	tokenTTL = 6 * time.Hour // the longest that EC2 gives
	// tokenMargin is how early a token is renewed.
	tokenMargin = time.Minute
	// requestTimeout is for a service one hop away that answers in under a millisecond.
	requestTimeout = 2 * time.Second
)

var errNotFound = errors.New("not found")

// metadata is an IMDSv2 client. It never falls back to IMDSv1: instances that
// matter require tokens, and there the fallback only hides the real error.
type metadata struct {
	base    string
	http    *http.Client
	token   string
	expires time.Time
}

func newMetadata(base string) *metadata {
	return &metadata{base: strings.TrimSuffix(base, "/"), http: &http.Client{
		Timeout: requestTimeout,
		// One connection for ever: the watcher asks one thing at a time. No proxy: the
		// address is link-local.
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: time.Second}).DialContext,
			MaxConnsPerHost:     1,
			MaxIdleConnsPerHost: 1,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// get returns the answer at path, or errNotFound. A token that the service no
// longer knows (it forgets them when it restarts) is replaced once.
func (m *metadata) get(ctx context.Context, path string) ([]byte, error) {
	for attempt := 0; ; attempt++ {
		if err := m.renew(ctx); err != nil {
			return nil, err
		}
		status, body, err := m.do(ctx, http.MethodGet, path, "X-aws-ec2-metadata-token", m.token)
		switch {
		case err != nil:
			return nil, err
		case status == http.StatusOK:
			return body, nil
		case status == http.StatusNotFound:
			return nil, errNotFound
		case status == http.StatusUnauthorized && attempt == 0:
			m.token = ""
		default:
			return nil, fmt.Errorf("GET %s: HTTP %d", path, status)
		}
	}
}

func (m *metadata) renew(ctx context.Context) error {
	if m.token != "" && time.Until(m.expires) > tokenMargin {
		return nil
	}
	asked := time.Now()
	const path = "/latest/api/token"
	status, body, err := m.do(ctx, http.MethodPut, path, "X-aws-ec2-metadata-token-ttl-seconds", strconv.Itoa(int(tokenTTL.Seconds())))
	if err != nil {
		return err
	}
	token := strings.TrimSpace(string(body))
	if status != http.StatusOK || token == "" || strings.ContainsAny(token, "\r\n") {
		return fmt.Errorf("PUT %s: HTTP %d and no usable token; on EC2, is the hop limit of the metadata options at least 1 for the host network?", path, status)
	}
	m.token, m.expires = token, asked.Add(tokenTTL)
	return nil
}

func (m *metadata) do(ctx context.Context, method, path, header, value string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, m.base+path, nil)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set(header, value)
	resp, err := m.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return 0, nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if len(body) > maxAnswer && resp.StatusCode == http.StatusOK {
		return 0, nil, fmt.Errorf("%s %s: the answer is longer than %d bytes", method, path, maxAnswer)
	}
	return resp.StatusCode, body, nil
}
