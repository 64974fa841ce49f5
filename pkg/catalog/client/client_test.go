// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/client"
)

// answering is a client of a server that gives these statuses, one a call, and then
// 200 with an empty object. calls counts what arrived.
func answering(t *testing.T, statuses ...int) (c *client.Client, calls *atomic.Int64) {
	t.Helper()
	calls = new(atomic.Int64)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := int(calls.Add(1))
		if r.Method != http.MethodGet && r.Header.Get("Authorization") != "Bearer secret-token" {
			t.Errorf("%s %s without the token", r.Method, r.URL)
		}
		if r.Method == http.MethodGet && r.Header.Get("Authorization") != "" {
			t.Error("a read in plain HTTP shows the token")
		}
		if n <= len(statuses) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(statuses[n-1])
			fmt.Fprint(w, `{"title":"t","detail":"gpuCount is wrong","errors":[{"message":"expected integer","location":"body.gpuCount"}]}`)
			return
		}
		fmt.Fprint(w, `{}`)
	}))
	t.Cleanup(server.Close)
	c, err := client.New(server.URL, server.Client(), func(context.Context) (string, error) { return "secret-token", nil })
	if err != nil {
		t.Fatal(err)
	}
	c.SetRetries(4, time.Millisecond)
	return c, calls
}

func TestACallIsTriedAgainOnlyWhereThatMayHelp(t *testing.T) {
	tests := map[string]struct {
		statuses  []int
		calls     int64
		failed    bool
		permanent bool
	}{
		"a success is asked for once":                  {nil, 1, false, false},
		"two failures of the server, then success":     {[]int{503, 502}, 3, false, false},
		"too many calls at once, then success":         {[]int{429}, 2, false, false},
		"four failures use up four attempts":           {[]int{503, 503, 503, 503}, 4, true, false},
		"a wrong value is not sent again":              {[]int{422}, 1, true, true},
		"a file that is too large is not sent again":   {[]int{413}, 1, true, true},
		"a refused caller is not final for the record": {[]int{403}, 1, true, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, calls := answering(t, tt.statuses...)
			_, err := c.PutRun(t.Context(), "ns/run", catalog.Run{})
			if (err != nil) != tt.failed || calls.Load() != tt.calls || client.Permanent(err) != tt.permanent {
				t.Errorf("error %v (permanent %v) after %d calls; want failed %v, permanent %v, %d calls", err, client.Permanent(err), calls.Load(), tt.failed, tt.permanent, tt.calls)
			}
			if err != nil && strings.Contains(err.Error(), "secret-token") {
				t.Errorf("the error has the token: %v", err)
			}
		})
	}
}

func TestARefusalTellsWhatTheCatalogSaid(t *testing.T) {
	c, _ := answering(t, 422)
	_, err := c.PutRun(t.Context(), "ns/run", catalog.Run{})
	for _, want := range []string{"PUT", "422", "gpuCount is wrong", "expected integer", "body.gpuCount"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v lacks %q", err, want)
		}
	}
	if !client.IsStatus(err, 422) || client.IsStatus(err, 404) {
		t.Error("the error has not its status")
	}
}

func TestReadsInPlainHTTPShowNoToken(t *testing.T) {
	c, calls := answering(t)
	if _, err := c.GetRun(t.Context(), "ns/run"); err != nil || calls.Load() != 1 {
		t.Errorf("error %v after %d calls", err, calls.Load())
	}
}

func TestAReadShowsTheTokenOverTLS(t *testing.T) {
	shown := ""
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shown = r.Header.Get("Authorization")
		fmt.Fprint(w, `{"items":[]}`)
	}))
	defer server.Close()
	c, err := client.New(server.URL, server.Client(), func(context.Context) (string, error) { return "secret-token", nil })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.ListModels(t.Context()); err != nil || shown != "Bearer secret-token" {
		t.Errorf("the read shows %q, %v", shown, err)
	}
}

func TestAReadCarriesTheFurthestPositionOfTheWritesBeforeIt(t *testing.T) {
	answers := []string{"0/1A000000", "1/0", "0/FFFFFFFF", "", ""}
	var sent []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent = append(sent, r.Method+" "+r.Header.Get("Catalog-Position"))
		if position := answers[len(sent)-1]; position != "" {
			w.Header().Set("Catalog-Position", position)
		}
		fmt.Fprint(w, `{}`)
	}))
	defer server.Close()
	c, err := client.New(server.URL, server.Client(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := c.PutRun(t.Context(), "ns/run", catalog.Run{}); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if _, err := c.GetRun(t.Context(), "ns/run"); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := strings.Join(sent, ","), "PUT ,PUT ,PUT ,GET 1/0,GET 1/0"; got != want {
		t.Errorf("sent %q, want %q", got, want)
	}
}

func TestRetriesEndWithTheContext(t *testing.T) {
	c, calls := answering(t, 503, 503, 503, 503)
	c.SetRetries(1000, time.Hour)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := c.PutRun(ctx, "ns/run", catalog.Run{}); err == nil || !errors.Is(err, context.DeadlineExceeded) && !client.IsStatus(err, 503) {
		t.Errorf("error %v, want the last refusal or the deadline", err)
	}
	if calls.Load() == 0 || time.Since(start) > 30*time.Second {
		t.Errorf("%d calls in %s; want at least one, and an end with the context", calls.Load(), time.Since(start))
	}
}

func TestAnAddressThatIsNoneIsRefusedWithAnExample(t *testing.T) {
	for _, address := range []string{"", "catalog:8000", "ftp://catalog", "https://"} {
		if _, err := client.New(address, nil, nil); err == nil || !strings.Contains(err.Error(), "https://api-service") {
			t.Errorf("%q: error %v, want one with an example", address, err)
		}
	}
}
