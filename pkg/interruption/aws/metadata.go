// SPDX-License-Identifier: Apache-2.0

package aws

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spotbench/spotbench/pkg/interruption/endpoint"
)

const (
	renewPath = "/latest/api/token"
	tokenTTL  = 6 * time.Hour // the longest that EC2 gives
	// tokenMargin is how early a token is renewed.
	tokenMargin = time.Minute
	// requestTimeout is for a service one hop away that answers in under a millisecond.
	requestTimeout = 2 * time.Second
)

// metadata is an IMDSv2 client. It never falls back to IMDSv1: instances that
// matter require tokens, and there the fallback only hides the real error.
type metadata struct {
	client  *endpoint.Client
	token   string
	expires time.Time
}

// get returns the answer at path, which is 200 or 404. A token that the service no
// longer knows (it forgets them when it restarts) is replaced once.
func (m *metadata) get(ctx context.Context, path string) (endpoint.Answer, error) {
	for attempt := 0; ; attempt++ {
		if err := m.renew(ctx); err != nil {
			return endpoint.Answer{}, err
		}
		answer, err := m.client.Get(ctx, path, requestTimeout, map[string]string{"X-aws-ec2-metadata-token": m.token})
		switch {
		case err != nil:
			return endpoint.Answer{}, err
		case answer.Status == http.StatusOK, answer.Status == http.StatusNotFound:
			return answer, nil
		case answer.Status == http.StatusUnauthorized:
			m.token = ""
			if attempt == 0 {
				continue
			}
		}
		return endpoint.Answer{}, answer.Unexpected("GET " + path)
	}
}

func (m *metadata) renew(ctx context.Context) error {
	if m.token != "" && time.Until(m.expires) > tokenMargin {
		return nil
	}
	asked := time.Now()
	answer, err := m.client.Do(ctx, endpoint.Request{Method: http.MethodPut, Path: renewPath, Timeout: requestTimeout,
		Header: map[string]string{"X-aws-ec2-metadata-token-ttl-seconds": strconv.Itoa(int(tokenTTL.Seconds()))}})
	if err != nil {
		return err
	}
	if answer.Status != http.StatusOK {
		return answer.Unexpected("PUT " + renewPath + " (is the metadata service of the instance enabled, and its hop limit at least 1 for the host network?)")
	}
	token := strings.TrimSpace(string(answer.Body))
	if token == "" || len(token) > 1024 || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return endpoint.Errorf(endpoint.Unauthorized, "PUT %s: the answer is no token", renewPath)
	}
	m.token, m.expires = token, asked.Add(tokenTTL)
	return nil
}
