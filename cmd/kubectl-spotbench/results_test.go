// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/compare"
	"github.com/spotbench/spotbench/pkg/catalog/filter"
)

// measured is a run of which one point was measured, by its output tokens/s.
func measured(gpu string, n int, throughput float64) catalog.Detail {
	concurrency := int64(8)
	return catalog.Describe(catalog.Parts{
		Run:     catalog.Run{Key: fmt.Sprintf("lab/%s-%d", strings.ToLower(gpu), n), Model: "org/m", Status: catalog.Succeeded, GPUModel: gpu, GPUCount: 1},
		Results: []catalog.Result{{Concurrency: &concurrency, Requests: 200, Completed: 200, OutputThroughput: &throughput}},
	}, time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))
}

// answering serves one answer, and tells what was asked.
func answering(t *testing.T, answer any) (address string, asked *url.URL) {
	t.Helper()
	asked = &url.URL{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*asked = *r.URL
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL, asked
}

func TestAComparisonIsATableOfMediansIntervalsAndWhatIsSignificant(t *testing.T) {
	var runs []catalog.Detail
	for n := range 6 {
		runs = append(runs, measured("A100", n, 100+float64(n)), measured("H100", n, 200+float64(n)))
	}
	runs = append(runs, measured("L4", 0, 50))
	report, err := compare.Compare(runs, compare.Options{By: []string{"gpuModel"}})
	if err != nil {
		t.Fatal(err)
	}
	address, asked := answering(t, report)
	out, err := kubectl(t, "compare", "--catalog", address, "--model", "org/m", "--by", "gpuModel")
	if err != nil {
		t.Fatal(err)
	}
	if got := asked.Path + "?" + asked.RawQuery; got != "/v1/compare?by=gpuModel&model=org%2Fm" {
		t.Errorf("asked %s", got)
	}
	// The medians 102.5 and 202.5: +97.6 %; p of 6 and 6 that do not overlap is 2/924.
	want := `A: A100 (6 runs, base)
B: H100 (6 runs)
C: L4 (1 runs)

LOAD           METRIC             UNIT      A                     B                     TO A                      C             TO A
concurrency 8  Output throughput  tokens/s  102.5 [100, 105] n=6  202.5 [200, 205] n=6  +97.6 % better (p=0.002)  50 [?] n=1    ?

Median [95 % interval] n=runs. A difference has p < 0.05; ~: not shown; ?: too few runs to tell.
`
	if diff := cmp.Diff(strings.Fields(want), strings.Fields(out)[:len(strings.Fields(want))]); diff != "" {
		t.Errorf("-want +got\n%s\n%s", diff, out)
	}
	out, err = kubectl(t, "compare", "--catalog", address, "lab/a", "lab/b", "-o", "csv")
	if err != nil || asked.RawQuery != "run=lab%2Fa&run=lab%2Fb" {
		t.Errorf("asked %s, %v", asked.RawQuery, err)
	}
	rows, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil || len(rows) < 4 || rows[2][4] != "H100" || rows[2][11] != "better" || rows[3][11] != "untested" {
		t.Errorf("as CSV: %v\n%s", err, out)
	}
}

func TestRunsResultsAndModelsAreTablesJSONAndCSV(t *testing.T) {
	url := serveCatalog(t)
	out, err := kubectl(t, "runs", "--catalog", url, "--verdict", "pending", "-n", "team-a")
	if err != nil {
		t.Fatal(err)
	}
	want := `RUN                    MODEL      BENCHMARK  GPUS  STATUS  VERDICT  INTERRUPTIONS  COST USD  USD/M TOKENS
team-a/llama-11111111  org/llama  -          -     -       pending  1              20.00     -
`
	if diff := cmp.Diff(want, out); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	out, err = kubectl(t, "runs", "--catalog", url, "-o", "csv")
	if rows, _ := csv.NewReader(strings.NewReader(out)).ReadAll(); err != nil || len(rows) != 3 || rows[0][7] != "cost_usd" || !slices.Contains(rows[0], "usd_per_m_tokens") {
		t.Errorf("as CSV: %v\n%s", err, out)
	}
	out, err = kubectl(t, "models", "--catalog", url, "-o", "json")
	var page catalog.Page[catalog.Model]
	if err := json.Unmarshal([]byte(out), &page); err != nil || len(page.Items) != 2 {
		t.Errorf("models as JSON: %v\n%s", err, out)
	}
	if err != nil {
		t.Error(err)
	}
	if out, err := kubectl(t, "results", "--catalog", url, "--run", "team-a/llama-11111111", "-o", "wide"); err != nil || out != "Nothing matches.\n" {
		t.Errorf("results of a run without: %q, %v", out, err)
	}
	if _, err := kubectl(t, "compare", "--catalog", url, "--by", "gpuModel"); err == nil || !strings.Contains(err.Error(), "no run with results matches") {
		t.Errorf("nothing to compare: %v", err)
	}
}

func TestEveryFilterOfTheAPIIsAFlag(t *testing.T) {
	streams, _, _, _ := genericiooptions.NewTestIOStreams()
	root := command(streams)
	for name, of := range map[string]any{"runs": &filter.RunList{}, "results": &filter.ResultList{}, "compare": &filter.Comparison{}} {
		cmd, _, err := root.Find([]string{name})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range filter.Fields(of) {
			if f.Name != "namespace" && cmd.Flags().Lookup(kebab(f.Name)) == nil {
				t.Errorf("%s has no flag for %s", name, f.Name)
			}
		}
		cmd.InheritedFlags().VisitAll(func(inherited *pflag.Flag) {
			if own := cmd.LocalNonPersistentFlags().Lookup(inherited.Name); own != nil {
				t.Errorf("%s: --%s hides kubectl's own flag", name, inherited.Name)
			}
		})
	}
	for _, args := range [][]string{{"runs", "--verdict", "good"}, {"runs", "--since", "yesterday"}, {"results", "--concurrency", "four"}, {"compare", "--by", "colour"}, {"runs", "-o", "xml"}} {
		if _, err := kubectl(t, args...); err == nil || !strings.Contains(err.Error(), args[len(args)-1]) {
			t.Errorf("%v: error %v does not name the value", args, err)
		}
	}
}
