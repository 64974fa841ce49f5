// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/auth"
	"github.com/spotbench/spotbench/pkg/catalog/httpapi"
	"github.com/spotbench/spotbench/pkg/catalog/localpg"
	"github.com/spotbench/spotbench/pkg/catalog/postgres"
)

// serveCatalog is a real catalog of two runs: one of ten hours on spot for $2 an
// hour ($5 on demand) that lost half an hour, one of an hour on demand.
func serveCatalog(t *testing.T) string {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	dir, err := os.MkdirTemp("", "catalog-test-") // PostgreSQL's user must get in
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	server, err := localpg.Start(t.Context(), dir, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop(context.Background()) })
	store, err := postgres.Open(t.Context(), postgres.Options{URL: server.URL()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	if _, err := store.MigrateUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	start, lost := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), 1800.0
	for key, segment := range map[string]catalog.Segment{
		"team-a/llama-11111111": {CapacityType: "spot", USDPerHour: 2, OnDemandUSDPerHour: 5, StartedAt: start, EndedAt: start.Add(10 * time.Hour)},
		"team-b/qwen-22222222":  {CapacityType: "on-demand", USDPerHour: 5, StartedAt: start, EndedAt: start.Add(time.Hour)},
	} {
		if _, _, err := store.PutRun(t.Context(), key, catalog.Run{Namespace: key[:6], Model: "org/" + strings.SplitN(key[7:], "-", 2)[0]}, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := store.PutSegment(t.Context(), key, "u1", segment); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := store.PutInterruption(t.Context(), "team-a/llama-11111111", "n1", catalog.Interruption{PodUID: "u1", WorkLostSeconds: &lost}); err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(httpapi.New(httpapi.Options{Store: store, Guard: auth.NewGuard(nil, nil), Log: log, Registry: prometheus.NewRegistry()}))
	t.Cleanup(web.Close)
	return web.URL
}

// kubectl runs the plugin and gives what it writes.
func kubectl(t *testing.T, args ...string) (string, error) {
	t.Helper()
	streams, _, out, _ := genericiooptions.NewTestIOStreams()
	cmd := command(streams)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestSavingsAreATableWithATotalAndTheSameAsJSON(t *testing.T) {
	url := serveCatalog(t)
	out, err := kubectl(t, "savings", "--catalog", url)
	if err != nil {
		t.Fatal(err)
	}
	// Llama: 10 h × $2; on demand 9.5 h × $5; at most 1 - 2/5.
	want := `MODEL      RUNS  HOURS  PAID    ON DEMAND  SAVED   AT MOST  INTERRUPTIONS  WORK LOST
org/llama  1     10.00  $20.00  $47.50     57.9 %  60.0 %   1              30m0s
org/qwen   1     1.00   $5.00   $5.00      0.0 %   0.0 %    0              0s
TOTAL      2     11.00  $25.00  $52.50     52.4 %  54.3 %   1              30m0s
`
	if diff := cmp.Diff(want, out); diff != "" {
		t.Errorf("the table (-want +got):\n%s", diff)
	}
	out, err = kubectl(t, "savings", "--catalog", url, "--by", "namespace", "-n", "team-b", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var report catalog.SavingsReport
	if err := json.Unmarshal([]byte(out), &report); err != nil || len(report.Lines) != 1 || report.Lines[0].Key != "team-b" || report.Total.PaidUSD != 5 {
		t.Errorf("as JSON: %s, %v, want the one line of team-b with $5", out, err)
	}
	out, err = kubectl(t, "savings", "--catalog", url, "--to", "2026-11-01")
	if err != nil || out != "No run spent anything in this time.\n" {
		t.Errorf("before the first run: %q, %v", out, err)
	}
}

func TestAWrongFlagNamesItselfItsValueAndARightOne(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"a breakdown":   {[]string{"--by", "colour"}, []string{`"colour"`, "namespace"}},
		"a time":        {[]string{"--from", "yesterday"}, []string{"--from", `"yesterday"`, "2026-01-31"}},
		"an address":    {[]string{"--catalog", "nowhere"}, []string{"--catalog", `"nowhere"`, "https://"}},
		"a service":     {[]string{"--catalog-service", "catalog"}, []string{"--catalog-service", `"catalog"`, "api-service:8000"}},
		"a kubeconfig":  {[]string{"--kubeconfig", "/does/not/exist"}, []string{"/does/not/exist"}},
		"times swapped": {[]string{"--from", "2026-02-01", "--to", "2026-01-01"}, []string{"to", "before from"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := kubectl(t, append([]string{"savings"}, c.args...)...)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not name %s", err, want)
				}
			}
		})
	}
}
