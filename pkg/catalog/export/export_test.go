// SPDX-License-Identifier: Apache-2.0

package export_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/parquet-go/parquet-go"
	"pgregory.net/rapid"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/export"
)

func of(results ...catalog.Result) iter.Seq2[catalog.Result, error] {
	return func(yield func(catalog.Result, error) bool) {
		for _, r := range results {
			if !yield(r, nil) {
				return
			}
		}
	}
}

func ptr[T any](v T) *T { return &v }

// anyResult makes results with and without every optional part, and with names
// that need quoting.
func anyResult() *rapid.Generator[catalog.Result] {
	return rapid.Custom(func(t *rapid.T) catalog.Result {
		text := rapid.SampledFrom([]string{"", "org/m", "a,b", "a\"b", "a\nb", " x ", "ü", "=1+1"})
		number := rapid.Ptr(rapid.Float64Range(0, 1e12), true)
		r := catalog.Result{
			ID: rapid.StringMatching(`[0-9a-f]{8}`).Draw(t, "id"), RunKey: text.Draw(t, "run"), File: text.Draw(t, "file"), Model: text.Draw(t, "model"), Format: "vllm",
			Concurrency: rapid.Ptr(rapid.Int64Range(0, 1<<50), true).Draw(t, "concurrency"), RequestRate: number.Draw(t, "rate"),
			Completed: rapid.Int64Range(0, 1<<50).Draw(t, "completed"), OutputThroughput: number.Draw(t, "throughput"),
			Unknown: rapid.SampledFrom([][]string{nil, {"requests"}, {"completed", "durationSeconds"}}).Draw(t, "unknown"),
		}
		if rapid.Bool().Draw(t, "ttft") {
			r.TTFT = &catalog.Latency{MeanMs: number.Draw(t, "mean"), P99Ms: number.Draw(t, "p99")}
		}
		if rapid.Bool().Draw(t, "metrics") {
			r.Metrics = map[string]float64{"acc,none": rapid.Float64().Draw(t, "metric"), "b": 1}
			r.Settings = map[string]string{"n": text.Draw(t, "setting")}
		}
		return r
	})
}

func TestParquetAndCSVAndLinesHoldTheSameResults(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		results := rapid.SliceOfN(anyResult(), 0, 5).Draw(t, "results")
		want := []export.Row{}
		for _, r := range results {
			row, err := export.RowOf(r)
			if err != nil {
				t.Skip("a number that JSON does not have")
			}
			want = append(want, row)
		}
		var table, text, lines bytes.Buffer
		if err := errors.Join(export.Write(&table, export.Parquet, of(results...)), export.Write(&text, export.CSV, of(results...)), export.Write(&lines, export.NDJSON, of(results...))); err != nil {
			t.Fatal(err)
		}
		rows, err := parquet.Read[export.Row](bytes.NewReader(table.Bytes()), int64(table.Len()))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, append([]export.Row{}, rows...)); diff != "" {
			t.Errorf("Parquet (-written +read)\n%s", diff)
		}
		records, err := csv.NewReader(&text).ReadAll()
		if err != nil || len(records) != len(results)+1 || !slices.Equal(records[0], export.Columns()) {
			t.Fatalf("CSV of %d rows, %v", len(records), err)
		}
		model := slices.Index(records[0], "model")
		decoder := json.NewDecoder(&lines)
		for n, r := range results {
			if records[n+1][model] != r.Model {
				t.Errorf("CSV has model %q for %q", records[n+1][model], r.Model)
			}
			var back catalog.Result
			if err := decoder.Decode(&back); err != nil || !cmp.Equal(back, r) {
				t.Errorf("line %d: %v %s", n, err, cmp.Diff(r, back))
			}
		}
	})
}

func TestWhatIsNotKnownIsEmptyAndNotZero(t *testing.T) {
	var out strings.Builder
	r := catalog.Result{ID: "i", Completed: 0, Requests: 7, Concurrency: ptr[int64](4), OutputThroughput: ptr(1.5), Unknown: []string{"completed"}}
	if err := export.Write(&out, export.CSV, of(r)); err != nil {
		t.Fatal(err)
	}
	records, err := csv.NewReader(strings.NewReader(out.String())).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for column, want := range map[string]string{"id": "i", "completed": "", "requests": "7", "failed": "0", "concurrency": "4", "output_tokens_per_second": "1.5", "ttft_mean_ms": "", "metrics_json": "{}"} {
		if got := records[1][slices.Index(records[0], column)]; got != want {
			t.Errorf("%s is %q, want %q", column, got, want)
		}
	}
}

func TestAnErrorOnTheWayIsAnErrorOfTheWhole(t *testing.T) {
	broken := func(yield func(catalog.Result, error) bool) {
		_ = yield(catalog.Result{ID: "1"}, nil) && yield(catalog.Result{}, errors.New("the database went away"))
	}
	for _, format := range []export.Format{export.NDJSON, export.CSV, export.Parquet, "xls"} {
		var out bytes.Buffer
		if err := export.Write(&out, format, broken); err == nil {
			t.Errorf("%s: no error", format)
		}
		if _, err := parquet.Read[export.Row](bytes.NewReader(out.Bytes()), int64(out.Len())); err == nil {
			t.Errorf("%s: what was written before the error is a whole file", format)
		}
	}
}
