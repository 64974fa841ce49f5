// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// TestPagesOfAnyListAreItsFilteredAndSortedWhole: whatever the filter, order and
// size of the pages, and with runs that come in between, the pages together are
// every run that matches, once, in order.
func TestPagesOfAnyListAreItsFilteredAndSortedWhole(t *testing.T) {
	s := newStore(t)
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		namespace := fmt.Sprintf("round-%d", round)
		var all []catalog.Run
		made := 0
		add := func(at time.Time) {
			run := catalog.Run{
				Namespace: namespace, StartedAt: at,
				Model:  rapid.SampledFrom([]string{"", "org/a", "org/b"}).Draw(rt, "model"),
				Status: rapid.SampledFrom([]catalog.Status{catalog.Running, catalog.Failed}).Draw(rt, "status"), Region: rapid.SampledFrom([]string{"", "eu", "us"}).Draw(rt, "region"),
			}
			made++
			run.Key = fmt.Sprintf("%s/%s-%d", namespace, rapid.StringMatching(`[a-z]{1,2}`).Draw(rt, "key"), made)
			put(t, s, run.Key, run)
			all = append(all, run)
		}
		// Three start times, so that many are the same.
		for range rapid.IntRange(0, 12).Draw(rt, "runs") {
			add(start.Add(time.Duration(rapid.IntRange(0, 2).Draw(rt, "hour")) * time.Hour))
		}
		q := catalog.RunQuery{
			Namespace: namespace, Limit: rapid.IntRange(1, 5).Draw(rt, "limit"), OldestFirst: rapid.Bool().Draw(rt, "oldest first"),
			Model: rapid.SampledFrom([]string{"", "", "org/a"}).Draw(rt, "of model"), Region: rapid.SampledFrom([]string{"", "", "eu"}).Draw(rt, "in region"),
		}
		if rapid.Bool().Draw(rt, "since?") {
			q.Since = start.Add(time.Hour)
		}
		if rapid.Bool().Draw(rt, "before?") {
			q.Before = start.Add(2 * time.Hour)
		}
		matches := func(r catalog.Run) bool {
			return (q.Model == "" || r.Model == q.Model) && (q.Region == "" || r.Region == q.Region) && !r.StartedAt.Before(q.Since) && (q.Before.IsZero() || r.StartedAt.Before(q.Before))
		}
		first := slices.Clone(all)
		var got []string
		for {
			page, err := s.ListRuns(t.Context(), q)
			if err != nil {
				rt.Fatal(err)
			}
			if len(page.Items) > q.Limit || len(page.Items) == 0 && page.NextPageToken != "" {
				rt.Fatalf("a page of %d with limit %d and token %q", len(page.Items), q.Limit, page.NextPageToken)
			}
			for _, r := range page.Items {
				got = append(got, r.Key)
			}
			if page.NextPageToken == "" {
				break
			}
			q.PageToken = page.NextPageToken
			if rapid.Bool().Draw(rt, "another run meanwhile") {
				add(start.Add(time.Duration(rapid.IntRange(0, 2).Draw(rt, "hour")) * time.Hour))
			}
		}
		sorted := func(a, b catalog.Run) int {
			order := cmp.Or(a.StartedAt.Compare(b.StartedAt), cmp.Compare(a.Key, b.Key))
			if !q.OldestFirst {
				order = -order
			}
			return order
		}
		var want, anywhere []string
		slices.SortFunc(all, sorted)
		for _, r := range all {
			if matches(r) {
				anywhere = append(anywhere, r.Key)
				if slices.ContainsFunc(first, func(f catalog.Run) bool { return f.Key == r.Key }) {
					want = append(want, r.Key)
				}
			}
		}
		// What came meanwhile may be there, in its place; the others must be.
		var others []string
		at := -1
		for _, key := range got {
			next := slices.Index(anywhere, key)
			if next <= at {
				rt.Fatalf("%s is out of order, twice or should not be there: %q of %q", key, got, anywhere)
			}
			at = next
			if slices.Contains(want, key) {
				others = append(others, key)
			}
		}
		if diff := gocmp.Diff(want, others); diff != "" {
			rt.Fatalf("(-want +got)\n%s", diff)
		}
	})
}

func TestPagesOfResultsAreFilteredAndSorted(t *testing.T) {
	s := newStore(t)
	put(t, s, "ns/l4", catalog.Run{GPUModel: "L4"})
	put(t, s, "ns/h100", catalog.Run{GPUModel: "H100-80GB"})
	before := time.Now()
	for n, key := range []string{"ns/l4", "ns/h100", "ns/l4"} {
		results := []catalog.Result{{Model: "org/m", Concurrency: ptr[int64](1)}, {Model: "org/m", Concurrency: ptr[int64](8)}, {Model: "org/m"}}
		format := []string{"vllm", "sglang", "guidellm"}[n]
		if _, _, err := s.Import(t.Context(), key, fmt.Sprintf("f%d", n), format, fmt.Appendf(nil, "content %d", n), results); err != nil {
			t.Fatal(err)
		}
	}
	tests := map[string]struct {
		query catalog.ResultQuery
		want  int
	}{
		"all":                        {catalog.ResultQuery{}, 9},
		"of a format":                {catalog.ResultQuery{Format: "sglang"}, 3},
		"of a GPU model":             {catalog.ResultQuery{GPUModel: "L4"}, 6},
		"at a concurrency":           {catalog.ResultQuery{Concurrency: ptr[int64](8)}, 3},
		"of a GPU at a concurrency":  {catalog.ResultQuery{GPUModel: "L4", Concurrency: ptr[int64](8)}, 2},
		"imported since the test":    {catalog.ResultQuery{Since: before.Add(-time.Second)}, 9},
		"imported before the test":   {catalog.ResultQuery{Before: before.Add(-time.Second)}, 0},
		"of a GPU that nobody has":   {catalog.ResultQuery{GPUModel: "none"}, 0},
		"the oldest first, the same": {catalog.ResultQuery{OldestFirst: true}, 9},
	}
	collect := func(q catalog.ResultQuery, limit int) []string {
		var ids []string
		for q.Limit = limit; ; {
			page, err := s.ListResults(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range page.Items {
				ids = append(ids, r.ID)
			}
			if q.PageToken = page.NextPageToken; q.PageToken == "" {
				return ids
			}
		}
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			whole := collect(tt.query, 500)
			if len(whole) != tt.want {
				t.Errorf("%d results, want %d", len(whole), tt.want)
			}
			// One at a time gives the same; the other order gives it backwards.
			if diff := gocmp.Diff(whole, collect(tt.query, 1)); diff != "" {
				t.Errorf("pages of one (-whole +pages)\n%s", diff)
			}
			reversed := tt.query
			reversed.OldestFirst = !reversed.OldestFirst
			backwards := collect(reversed, 2)
			slices.Reverse(backwards)
			if diff := gocmp.Diff(whole, backwards); diff != "" {
				t.Errorf("the other order backwards\n%s", diff)
			}
		})
	}
	page, err := s.ListResults(t.Context(), catalog.ResultQuery{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.ListResults(t.Context(), catalog.ResultQuery{Limit: 1, OldestFirst: true, PageToken: page.NextPageToken}); !errors.Is(err, catalog.ErrInvalid) {
		t.Errorf("a token of the other order: %v", err)
	}
}
