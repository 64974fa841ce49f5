// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Client gives orders to a machine's init.
type Client struct {
	http *http.Client
	name string
}

// NewClient talks to the control socket at path; name is for error messages.
func NewClient(path, name string) *Client {
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	return &Client{name: name, http: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		},
	}}}
}

// Services reports on all services.
func (c *Client) Services(ctx context.Context) ([]ServiceStatus, error) {
	body, err := c.do(ctx, http.MethodGet, "/services", nil)
	if err != nil {
		return nil, err
	}
	var list []ServiceStatus
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, fmt.Errorf("machine %s: read the list of services: %w", c.name, err)
	}
	return list, nil
}

// Start starts a held service, and restarts one that runs.
func (c *Client) Start(ctx context.Context, service string) error {
	_, err := c.do(ctx, http.MethodPost, "/services/"+service+"/start", nil)
	return err
}

// Stop kills a service and holds it until Start.
func (c *Client) Stop(ctx context.Context, service string) error {
	_, err := c.do(ctx, http.MethodPost, "/services/"+service+"/stop", nil)
	return err
}

// SetArgs restarts a service with other arguments.
func (c *Client) SetArgs(ctx context.Context, service string, args []string) error {
	body, err := json.Marshal(args)
	if err != nil {
		return fmt.Errorf("machine %s: encode the arguments of %s: %w", c.name, service, err)
	}
	_, err = c.do(ctx, http.MethodPut, "/services/"+service+"/args", bytes.NewReader(body))
	return err
}

// Run runs a program on the machine and returns its output.
func (c *Client) Run(ctx context.Context, input io.Reader, args ...string) ([]byte, error) {
	return c.do(ctx, http.MethodPost, "/run?"+url.Values{"arg": args}.Encode(), input)
}

// WriteFile replaces a file on the machine.
func (c *Client) WriteFile(ctx context.Context, path string, content []byte) error {
	_, err := c.do(ctx, http.MethodPut, "/files?"+url.Values{"path": {path}}.Encode(), bytes.NewReader(content))
	return err
}

func (c *Client) do(ctx context.Context, method, path string, body io.Reader) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://machine"+path, body)
	if err != nil {
		return nil, fmt.Errorf("machine %s: %w", c.name, err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("machine %s: %w", c.name, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("machine %s: read the answer: %w", c.name, err)
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return nil, fmt.Errorf("machine %s: %s", c.name, strings.TrimSpace(string(answer)))
	}
	return answer, nil
}
