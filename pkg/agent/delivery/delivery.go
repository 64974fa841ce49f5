// SPDX-License-Identifier: Apache-2.0

// Package delivery sends queued records to the catalog's API.
package delivery

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spotbench/spotbench/pkg/agent/spool"
	"github.com/spotbench/spotbench/pkg/catalog/client"
	"github.com/spotbench/spotbench/pkg/version"
)

// Client sends entries to one catalog.
type Client struct {
	base, tokenFile string
	http            *http.Client
}

// New makes a client for the catalog at base. The token is read from tokenFile
// for each request, because the kubelet renews it; caFile holds the authority of
// the catalog's certificate, "" for the system's.
func New(base, tokenFile, caFile string) (*Client, error) {
	trusting, err := client.Trusting(caFile, 30*time.Second)
	if err != nil {
		return nil, err
	}
	return &Client{base: strings.TrimSuffix(base, "/"), tokenFile: tokenFile, http: trusting}, nil
}

// Deliver sends one entry. What the catalog will never accept is spool.ErrRefused;
// whatever may pass (no route, no token yet, a busy or failing catalog) is not.
func (c *Client) Deliver(ctx context.Context, entry spool.Entry) error {
	req, err := http.NewRequestWithContext(ctx, entry.Method, c.base+entry.Path, bytes.NewReader(entry.Body))
	if err != nil {
		return fmt.Errorf("%s %s: %w: %w", entry.Method, entry.Path, spool.ErrRefused, err)
	}
	req.Header.Set("Content-Type", entry.ContentType)
	req.Header.Set("User-Agent", "spotbench-node-agent/"+version.Release())
	if c.tokenFile != "" {
		token, err := os.ReadFile(c.tokenFile)
		if err != nil {
			return fmt.Errorf("token for the catalog: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	problem, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		return err
	}
	switch {
	case resp.StatusCode < 300:
		return nil
	case final(resp.StatusCode):
		return fmt.Errorf("%s %s: %s: %w: %s", entry.Method, entry.Path, resp.Status, spool.ErrRefused, problem)
	default:
		return fmt.Errorf("%s %s: %s: %s", entry.Method, entry.Path, resp.Status, problem)
	}
}

// final says that the same request would be refused again. Missing rights are not
// final: an administrator can grant them, and the record is still there.
func final(status int) bool {
	switch status {
	case http.StatusBadRequest, http.StatusNotFound, http.StatusConflict, http.StatusRequestEntityTooLarge,
		http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return true
	}
	return false
}
