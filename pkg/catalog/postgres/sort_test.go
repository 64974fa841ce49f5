// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/filter"
)

// figures are what results can be sorted by besides the time, and where a result has it.
var figures = map[string]func(catalog.Result) *float64{
	"requestThroughput":    func(r catalog.Result) *float64 { return r.RequestThroughput },
	"outputThroughput":     func(r catalog.Result) *float64 { return r.OutputThroughput },
	"totalTokenThroughput": func(r catalog.Result) *float64 { return r.TotalTokenThroughput },
	"ttftMedianMs":         func(r catalog.Result) *float64 { return of(r.TTFT, false) },
	"ttftP99Ms":            func(r catalog.Result) *float64 { return of(r.TTFT, true) },
	"tpotMedianMs":         func(r catalog.Result) *float64 { return of(r.TPOT, false) },
	"tpotP99Ms":            func(r catalog.Result) *float64 { return of(r.TPOT, true) },
	"e2elMedianMs":         func(r catalog.Result) *float64 { return of(r.E2EL, false) },
	"e2elP99Ms":            func(r catalog.Result) *float64 { return of(r.E2EL, true) },
	"concurrency":          func(r catalog.Result) *float64 { return whole(r.Concurrency) },
	"requests":             func(r catalog.Result) *float64 { return known(r, "requests", float64(r.Requests)) },
	"completed":            func(r catalog.Result) *float64 { return known(r, "completed", float64(r.Completed)) },
	"outputTokens":         func(r catalog.Result) *float64 { return known(r, "outputTokens", float64(r.OutputTokens)) },
	"durationSeconds":      func(r catalog.Result) *float64 { return known(r, "durationSeconds", r.DurationSeconds) },
}

func of(l *catalog.Latency, p99 bool) *float64 {
	switch {
	case l == nil:
		return nil
	case p99:
		return l.P99Ms
	}
	return l.MedianMs
}

func whole(v *int64) *float64 {
	if v == nil {
		return nil
	}
	return ptr(float64(*v))
}

func known(r catalog.Result, name string, v float64) *float64 {
	if slices.Contains(r.Unknown, name) || v == 0 {
		return nil // zero is left out of the JSON, as what is not there
	}
	return &v
}

// sorts are the values that a list's parameter takes.
func sorts(t *testing.T, list any) []string {
	t.Helper()
	for _, f := range filter.Fields(list) {
		if f.Name == "sort" {
			return f.Values
		}
	}
	t.Fatalf("%T has no sort", list)
	return nil
}

// TestResultsSortedByAFigureAreEachOfThemOnceInOrder: whatever the figure, direction and
// size of the pages, with equal figures, with results that lack it, and with results that
// come in between, the pages together are every result that has the figure, once.
func TestResultsSortedByAFigureAreEachOfThemOnceInOrder(t *testing.T) {
	s := newStore(t)
	names := slices.DeleteFunc(slices.Clone(sorts(t, &filter.ResultList{})), func(n string) bool { return n == "importedAt" })
	for _, name := range names {
		if figures[name] == nil {
			t.Fatalf("no figure is known here for the sort %s", name)
		}
	}
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		key := fmt.Sprintf("ns/sorted-%d", round)
		put(t, s, key, catalog.Run{})
		all := map[string]catalog.Result{}
		files := 0
		add := func(count int) []string {
			// Few values, among them two that differ in the last digit only.
			value := rapid.SampledFrom([]*float64{nil, ptr(0.1), ptr(0.30000000000000004), ptr(0.3), ptr(7.0), ptr(1e9)})
			number := rapid.Int64Range(1, 3)
			results := make([]catalog.Result, count)
			for n := range results {
				r := &results[n]
				r.RequestThroughput, r.OutputThroughput, r.TotalTokenThroughput = value.Draw(rt, "requests/s"), value.Draw(rt, "tokens/s"), value.Draw(rt, "all tokens/s")
				for _, l := range []**catalog.Latency{&r.TTFT, &r.TPOT, &r.E2EL} {
					if rapid.Bool().Draw(rt, "latency?") {
						*l = &catalog.Latency{MedianMs: value.Draw(rt, "median"), P99Ms: value.Draw(rt, "p99")}
					}
				}
				r.Requests, r.Completed, r.OutputTokens, r.DurationSeconds = number.Draw(rt, "requests"), number.Draw(rt, "completed"), number.Draw(rt, "tokens"), float64(number.Draw(rt, "seconds"))
				if rapid.Bool().Draw(rt, "concurrency?") {
					r.Concurrency = ptr(number.Draw(rt, "concurrency"))
				}
				if rapid.Bool().Draw(rt, "unknown?") {
					r.Unknown = []string{"requests", "completed", "outputTokens", "durationSeconds"}
				}
			}
			if count == 0 {
				return nil
			}
			files++
			imported, _, err := s.Import(t.Context(), key, strconv.Itoa(files), "vllm", fmt.Appendf(nil, "%s %d", key, files), results)
			if err != nil {
				rt.Fatal(err)
			}
			for n, id := range imported.Results {
				all[id] = results[n]
			}
			return imported.Results
		}
		first := add(rapid.IntRange(0, 12).Draw(rt, "results"))
		q := catalog.ResultQuery{RunKey: key, Sort: rapid.SampledFrom(names).Draw(rt, "sort"), OldestFirst: rapid.Bool().Draw(rt, "ascending"), Limit: rapid.IntRange(1, 4).Draw(rt, "limit")}
		var got []string
		for {
			page, err := s.ListResults(t.Context(), q)
			if err != nil {
				rt.Fatal(err)
			}
			for _, r := range page.Items {
				got = append(got, r.ID)
			}
			if q.PageToken = page.NextPageToken; q.PageToken == "" {
				break
			}
			if rapid.Bool().Draw(rt, "more come") {
				add(2)
			}
		}
		figure := figures[q.Sort]
		inOrder := func(a, b string) int {
			order := cmp.Or(cmp.Compare(*figure(all[a]), *figure(all[b])), strings.Compare(a, b))
			if !q.OldestFirst {
				order = -order
			}
			return order
		}
		for n, id := range got {
			if figure(all[id]) == nil {
				rt.Fatalf("a result without the figure %s is listed", q.Sort)
			}
			if n > 0 && inOrder(got[n-1], id) >= 0 {
				rt.Fatalf("sorted by %s, %v does not come before %v", q.Sort, *figure(all[got[n-1]]), *figure(all[id]))
			}
		}
		for _, id := range first {
			if figure(all[id]) != nil && !slices.Contains(got, id) {
				rt.Fatalf("a result with %s %v is on no page", q.Sort, *figure(all[id]))
			}
		}
	})
}

// TestOtherListsSortedByAnythingAreWhole: pages of one are the page of all, and the other
// direction is that backwards.
func TestOtherListsSortedByAnythingAreWhole(t *testing.T) {
	s := newStore(t)
	for n := range 9 {
		key := fmt.Sprintf("ns/%c", 'a'+(n*5)%9)
		run := catalog.Run{Model: fmt.Sprintf("org/%d", n%3), Benchmark: "b", GPUModel: fmt.Sprintf("G%d", n%2), USDPerHour: float64(n % 4), StartedAt: start.Add(time.Duration(n) * time.Minute)}
		if n%3 > 0 {
			run.Status, run.FinishedAt = catalog.Succeeded, start.Add(time.Duration(20-n)*time.Hour)
		}
		put(t, s, key, run)
		if n%2 > 0 {
			importPoint(t, s, key, "r", "vllm", key)
		}
		interruption := catalog.Interruption{Kind: fmt.Sprintf("k%d", n%2), Node: fmt.Sprintf("n%d", n%3), NoticeAt: start.Add(time.Duration(n%4) * time.Hour)}
		if n%3 > 0 {
			interruption.WorkLostSeconds = ptr(float64(n % 2))
		}
		if _, err := s.PutInterruption(t.Context(), key, "i", interruption); err != nil {
			t.Fatal(err)
		}
		machine := catalog.Instance{Node: fmt.Sprintf("sorted-%d", n%4), Provider: "sorting", InstanceType: fmt.Sprintf("t%d", n%2), StartedAt: start.Add(time.Duration(n%5) * time.Hour), SeenAt: start.Add(24 * time.Hour)}
		if n%3 > 0 {
			machine.NoticeAt = start.Add(time.Duration(30+n) * time.Hour)
		}
		if _, err := s.PutInstance(t.Context(), fmt.Sprintf("sorted-%d", n), machine); err != nil {
			t.Fatal(err)
		}
	}
	// page lists once and gives the keys of the rows, the value they are sorted by, and the token.
	type page func(sort string, ascending bool, limit int, token string) (keys []string, values []any, next string, err error)
	field := func(v any, name string) any {
		return reflect.ValueOf(v).FieldByNameFunc(func(f string) bool { return strings.EqualFold(f, name) }).Interface()
	}
	lists := map[string]struct {
		names []string
		list  page
	}{
		"runs": {sorts(t, &filter.RunList{}), func(sort string, ascending bool, limit int, token string) (keys []string, values []any, next string, err error) {
			p, err := s.ListRuns(t.Context(), catalog.RunQuery{Sort: sort, OldestFirst: ascending, Limit: limit, PageToken: token})
			for _, r := range p.Items {
				keys, values = append(keys, r.Key), append(values, field(r, strings.Replace(sort, "results", "resultCount", 1)))
			}
			return keys, values, p.NextPageToken, err
		}},
		"interruptions": {sorts(t, &filter.InterruptionList{}), func(sort string, ascending bool, limit int, token string) (keys []string, values []any, next string, err error) {
			p, err := s.ListInterruptions(t.Context(), catalog.InterruptionQuery{Sort: sort, OldestFirst: ascending, Limit: limit, PageToken: token})
			for _, r := range p.Items {
				keys, values = append(keys, r.RunKey), append(values, field(r, sort))
			}
			return keys, values, p.NextPageToken, err
		}},
		"machines": {sorts(t, &filter.InstanceList{}), func(sort string, ascending bool, limit int, token string) (keys []string, values []any, next string, err error) {
			p, err := s.ListInstances(t.Context(), catalog.InstanceQuery{Provider: "sorting", Sort: sort, OldestFirst: ascending, Limit: limit, PageToken: token})
			for _, r := range p.Items {
				keys, values = append(keys, r.UID), append(values, field(r, sort))
			}
			return keys, values, p.NextPageToken, err
		}},
	}
	for what, l := range lists {
		for _, sort := range l.names {
			t.Run(what+" by "+sort, func(t *testing.T) {
				keys, values, _, err := l.list(sort, true, 100, "")
				if err != nil || len(keys) < 5 {
					t.Fatalf("%v, %v", keys, err)
				}
				for n := 1; n < len(values); n++ {
					if later(values[n-1], values[n]) {
						t.Errorf("%v stands before %v", values[n-1], values[n])
					}
				}
				for _, limit := range []int{1, 2} {
					var got []string
					for token := ""; ; {
						some, _, next, err := l.list(sort, limit == 1, limit, token)
						if err != nil {
							t.Fatal(err)
						}
						if got, token = append(got, some...), next; token == "" {
							break
						}
					}
					if limit == 2 {
						slices.Reverse(got)
					}
					if diff := gocmp.Diff(keys, got); diff != "" {
						t.Errorf("pages of %d (-whole +pages)\n%s", limit, diff)
					}
				}
			})
		}
	}
	_, _, token, err := lists["runs"].list("model", true, 1, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range []string{"gpuModel", "startedAt", "colour"} {
		if _, _, _, err := lists["runs"].list(other, true, 1, token); !errors.Is(err, catalog.ErrInvalid) {
			t.Errorf("a token of another sort than %s: %v", other, err)
		}
	}
}

// later compares values of one of the types that fields have.
func later(a, b any) bool {
	switch a := a.(type) {
	case time.Time:
		return a.After(b.(time.Time))
	case *float64:
		return *a > *b.(*float64)
	case float64:
		return a > b.(float64)
	case int:
		return a > b.(int)
	case string:
		return a > b.(string)
	}
	panic(fmt.Sprintf("a field of type %T", a))
}

// TestASortedListReadsNoMoreThanItsPage: by a figure that has an index, over all models; by
// the others the catalog refuses to read everything.
func TestASortedListReadsNoMoreThanItsPage(t *testing.T) {
	s := newStore(t)
	store, url := newDatabase(t, 0)
	defer store.Close()
	if _, err := store.MigrateUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for _, sql := range []string{
		`INSERT INTO runs (key) VALUES ('ns/a')`,
		`INSERT INTO imports (id, run_key, file, format, sha256, bytes, imported_at) VALUES ('00000000-0000-0000-0000-000000000001', 'ns/a', 'f', 'vllm', 'x', 1, now())`,
		`INSERT INTO results (id, import_id, position, run_key, model, imported_at, body)
			SELECT gen_random_uuid(), '00000000-0000-0000-0000-000000000001', n, 'ns/a', 'org/' || n % 10, now(),
			jsonb_build_object('requestThroughput', n * 7 % 10007, 'outputThroughput', n * 11 % 10007, 'ttft', jsonb_build_object('p99Ms', n * 13 % 10007), 'tpot', jsonb_build_object('p99Ms', n * 17 % 10007))
			FROM generate_series(1, 20000) n`,
		`ANALYZE results`,
	} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	for column, index := range map[string]string{"requests_per_second": "results_by_requests", "output_tokens_per_second": "results_by_output", "ttft_p99_ms": "results_by_ttft", "tpot_p99_ms": "results_by_tpot"} {
		for _, direction := range []string{"DESC", "ASC"} {
			rows, err := conn.Query(t.Context(), fmt.Sprintf("EXPLAIN SELECT body FROM results WHERE NOT superseded AND %[1]s IS NOT NULL AND (%[1]s, id) %[3]s (5000, '00000000-0000-0000-0000-000000000001') ORDER BY %[1]s %[2]s, id %[2]s LIMIT 51",
				column, direction, map[string]string{"DESC": "<", "ASC": ">"}[direction]))
			if err != nil {
				t.Fatal(err)
			}
			plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if text := strings.Join(plan, "\n"); err != nil || !strings.Contains(text, index) || strings.Contains(text, "Sort") {
				t.Errorf("%s %s (%v):\n%s", column, direction, err, text)
			}
		}
	}
	for _, name := range sorts(t, &filter.ResultList{}) {
		_, err := s.ListResults(t.Context(), catalog.ResultQuery{Sort: name})
		indexed := slices.Contains([]string{"importedAt", "requestThroughput", "outputThroughput", "ttftP99Ms", "tpotP99Ms"}, name)
		if refused := errors.Is(err, catalog.ErrInvalid); refused == indexed || err != nil && !refused {
			t.Errorf("all results by %s: %v", name, err)
		}
		if _, err := s.ListResults(t.Context(), catalog.ResultQuery{Sort: name, Model: "org/m"}); err != nil {
			t.Errorf("a model's results by %s: %v", name, err)
		}
	}
}
