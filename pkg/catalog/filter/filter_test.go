// SPDX-License-Identifier: Apache-2.0

package filter_test

import (
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/compare"
	"github.com/spotbench/spotbench/pkg/catalog/filter"
)

func TestAFilterIsAQueryOfWhatIsSet(t *testing.T) {
	f := filter.Comparison{Run: []string{"a/b", "c"}, All: true, Runs: filter.Runs{Model: "org/m", Status: "succeeded", Dated: filter.Dated{Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}}}
	want := map[string][]string{"run": {"a/b", "c"}, "all": {"true"}, "model": {"org/m"}, "status": {"succeeded"}, "since": {"2026-01-02T03:04:05Z"}}
	if diff := cmp.Diff(want, map[string][]string(filter.Encode(&f))); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	page := filter.ResultList{Paged: filter.Paged{Limit: 7}, Results: filter.Results{Concurrency: 4}}
	if got := filter.Encode(&page).Encode(); got != "concurrency=4&limit=7" {
		t.Errorf("query %q", got)
	}
}

func TestEveryParameterHasOneNameADescriptionAndWhatComparisonsKnow(t *testing.T) {
	known := map[string][]string{"by": compare.DimensionNames(), "latency": compare.LatencyMetrics(), "objective": {"throughput", "latency", "cost"}}
	for _, f := range []any{&filter.RunList{}, &filter.ResultList{}, &filter.InterruptionList{}, &filter.Comparison{}, &filter.Pareto{}, &filter.Regressions{}} {
		seen := map[string]bool{}
		for _, field := range filter.Fields(f) {
			if field.Name == "" || field.Doc == "" || seen[field.Name] {
				t.Errorf("%T: parameter %q, %q, there before: %v", f, field.Name, field.Doc, seen[field.Name])
			}
			seen[field.Name] = true
			if want := known[field.Name]; want != nil && !slices.Equal(field.Values, want) {
				t.Errorf("%T: %s takes %v, want %v", f, field.Name, field.Values, want)
			}
		}
	}
}

func TestAQueryIsTheFilterItWasMadeFromAndAWrongOneNamesTheParameter(t *testing.T) {
	want := filter.Pareto{By: []string{"gpuModel", "engine"}, Latency: "tpotP99Ms", All: true, Runs: filter.Runs{Verdict: "valid", Dated: filter.Dated{Before: time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)}}}
	var got filter.Pareto
	if err := filter.Decode(filter.Encode(&want), &got); err != nil || !cmp.Equal(want, got) {
		t.Errorf("%v\n%s", err, cmp.Diff(want, got))
	}
	for query, part := range map[string]string{"by=colour": `by "colour"`, "since=yesterday": `since "yesterday"`, "all=maybe": `all "maybe"`, "verdict=good": "suspect"} {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if err := filter.Decode(values, &filter.Comparison{}); !errors.Is(err, catalog.ErrInvalid) || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: %v, want an error with %s", query, err, part)
		}
	}
}
