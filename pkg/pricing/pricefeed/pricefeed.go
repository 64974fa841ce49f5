// SPDX-License-Identifier: Apache-2.0

// Package pricefeed asks clouds and OpenCost what instances cost. Each price says
// since when it holds and who said so; what a source does not list is not made up.
package pricefeed

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/pricing"
)

// Query says which prices are wanted.
type Query struct {
	// Region is the cloud's own name of it, for example us-east-1, eastus or us-central1.
	Region string
	// InstanceTypes are the cloud's own names; a source may need them.
	InstanceTypes []string
}

// Source gives prices. A source that lists nothing for an instance type leaves it
// out.
type Source interface {
	Prices(ctx context.Context, q Query) ([]pricing.Price, error)
}

// Options are what every source over HTTP takes.
type Options struct {
	// Endpoint replaces the source's public address, for a proxy or a test.
	Endpoint string
	// Client carries time-outs and authorities; nil has a minute for each request.
	Client *http.Client
}

func (o Options) client() *http.Client {
	if o.Client == nil {
		return &http.Client{Timeout: time.Minute}
	}
	return o.Client
}

func (o Options) endpoint(public string) string {
	if o.Endpoint != "" {
		return o.Endpoint
	}
	return public
}

// Bounds on what a source may answer.
const (
	mostBytes = 64 << 20
	mostPages = 1000
)

// fetch sends a request and gives the body of a 200.
func fetch(client *http.Client, req *http.Request) ([]byte, error) {
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, mostBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the answer of %s: %w", req.URL.Host, err)
	case len(body) > mostBytes:
		return nil, fmt.Errorf("%s answered more than %d MiB", req.URL.Host, mostBytes>>20)
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s answered %s: %.300s", req.URL.Host, resp.Status, body)
	}
	return body, nil
}

func getJSON(ctx context.Context, client *http.Client, url string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	body, err := fetch(client, req)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("the answer of %s is not the JSON expected: %w", req.URL.Host, err)
	}
	return nil
}

// wants says whether a pool is among those asked for; what is empty matches all.
func (q Query) wants(p gpu.Pool) bool {
	return (q.Region == "" || q.Region == p.Region) && (len(q.InstanceTypes) == 0 || slices.Contains(q.InstanceTypes, p.InstanceType))
}

// checked are the prices in a fixed order. One that cannot be, such as a negative one,
// makes them all doubtful.
func checked(prices map[gpu.Pool]pricing.Price) ([]pricing.Price, error) {
	list := slices.SortedFunc(maps.Values(prices), func(a, b pricing.Price) int { return strings.Compare(a.Pool().String(), b.Pool().String()) })
	for _, p := range list {
		if err := p.Validate(); err != nil {
			return nil, fmt.Errorf("%s: %w", p.Source, err)
		}
	}
	return list, nil
}
