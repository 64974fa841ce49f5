// SPDX-License-Identifier: Apache-2.0

// Package export writes results for other tools: lines of JSON, CSV and Parquet.
// It takes them one by one, so that a list of any length takes the memory of a
// few.
package export

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"reflect"
	"strconv"
	"strings"

	"github.com/parquet-go/parquet-go"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// Format is what results are written as.
type Format string

// The formats.
const (
	NDJSON  Format = "ndjson"
	CSV     Format = "csv"
	Parquet Format = "parquet"
)

// MediaType is the format's Content-Type.
func (f Format) MediaType() string {
	switch f {
	case CSV:
		return "text/csv; charset=utf-8; header=present"
	case Parquet:
		return "application/vnd.apache.parquet"
	case NDJSON:
	}
	return "application/x-ndjson"
}

// Write writes the results until they end or one is an error.
func Write(w io.Writer, format Format, results iter.Seq2[catalog.Result, error]) error {
	switch format {
	case NDJSON:
		return writeLines(w, results)
	case CSV:
		return writeCSV(w, results)
	case Parquet:
		return writeParquet(w, results)
	}
	return fmt.Errorf("format %q is unknown; use ndjson, csv or parquet", format)
}

func writeLines(w io.Writer, results iter.Seq2[catalog.Result, error]) error {
	lines := json.NewEncoder(w)
	for r, err := range results {
		if err != nil {
			return err
		}
		if err := lines.Encode(r); err != nil {
			return err
		}
	}
	return nil
}

// Row is a result as a row of a table. What a result does not have, or does not
// know, is null in Parquet and empty in CSV. A column's name says its unit.
type Row struct {
	ID          string `parquet:"id"`
	Run         string `parquet:"run,dict"`
	ImportID    string `parquet:"import_id,dict"`
	File        string `parquet:"file,dict"`
	Format      string `parquet:"format,dict"`
	Tool        string `parquet:"tool,dict"`
	ToolVersion string `parquet:"tool_version,dict"`
	Model       string `parquet:"model,dict"`
	Tokenizer   string `parquet:"tokenizer,dict"`
	Backend     string `parquet:"backend,dict"`
	LocalDate   string `parquet:"local_date"`

	Concurrency *int64   `parquet:"concurrency,optional"`
	RequestRate *float64 `parquet:"request_rate_per_second,optional"`
	Burstiness  *float64 `parquet:"burstiness,optional"`

	Requests        *int64   `parquet:"requests,optional"`
	Completed       *int64   `parquet:"completed,optional"`
	Failed          *int64   `parquet:"failed,optional"`
	DurationSeconds *float64 `parquet:"duration_seconds,optional"`
	InputTokens     *int64   `parquet:"input_tokens,optional"`
	OutputTokens    *int64   `parquet:"output_tokens,optional"`

	RequestThroughput    *float64 `parquet:"requests_per_second,optional"`
	RequestGoodput       *float64 `parquet:"good_requests_per_second,optional"`
	OutputThroughput     *float64 `parquet:"output_tokens_per_second,optional"`
	TotalTokenThroughput *float64 `parquet:"total_tokens_per_second,optional"`

	TTFTMean   *float64 `parquet:"ttft_mean_ms,optional"`
	TTFTMedian *float64 `parquet:"ttft_median_ms,optional"`
	TTFTStd    *float64 `parquet:"ttft_std_ms,optional"`
	TTFTP99    *float64 `parquet:"ttft_p99_ms,optional"`
	TPOTMean   *float64 `parquet:"tpot_mean_ms,optional"`
	TPOTMedian *float64 `parquet:"tpot_median_ms,optional"`
	TPOTStd    *float64 `parquet:"tpot_std_ms,optional"`
	TPOTP99    *float64 `parquet:"tpot_p99_ms,optional"`
	ITLMean    *float64 `parquet:"itl_mean_ms,optional"`
	ITLMedian  *float64 `parquet:"itl_median_ms,optional"`
	ITLStd     *float64 `parquet:"itl_std_ms,optional"`
	ITLP99     *float64 `parquet:"itl_p99_ms,optional"`
	E2ELMean   *float64 `parquet:"e2el_mean_ms,optional"`
	E2ELMedian *float64 `parquet:"e2el_median_ms,optional"`
	E2ELStd    *float64 `parquet:"e2el_std_ms,optional"`
	E2ELP99    *float64 `parquet:"e2el_p99_ms,optional"`

	Metrics  string `parquet:"metrics_json"`
	Settings string `parquet:"settings_json"`
}

// RowOf flattens a result.
func RowOf(r catalog.Result) (Row, error) {
	metrics, err := object(r.Metrics)
	if err != nil {
		return Row{}, fmt.Errorf("metrics of result %s: %w", r.ID, err)
	}
	settings, err := object(r.Settings)
	if err != nil {
		return Row{}, fmt.Errorf("settings of result %s: %w", r.ID, err)
	}
	row := Row{
		ID: r.ID, Run: r.RunKey, ImportID: r.ImportID, File: r.File, Format: r.Format, Tool: r.Tool, ToolVersion: r.ToolVersion,
		Model: r.Model, Tokenizer: r.Tokenizer, Backend: r.Backend, LocalDate: r.LocalDate,
		Concurrency: r.Concurrency, RequestRate: r.RequestRate, Burstiness: r.Burstiness,
		Requests: stated(r, "requests", r.Requests), Completed: stated(r, "completed", r.Completed), Failed: stated(r, "failed", r.Failed),
		DurationSeconds: stated(r, "durationSeconds", r.DurationSeconds), InputTokens: stated(r, "inputTokens", r.InputTokens), OutputTokens: stated(r, "outputTokens", r.OutputTokens),
		RequestThroughput: r.RequestThroughput, RequestGoodput: r.RequestGoodput, OutputThroughput: r.OutputThroughput, TotalTokenThroughput: r.TotalTokenThroughput,
		Metrics: metrics, Settings: settings,
	}
	if l := r.TTFT; l != nil {
		row.TTFTMean, row.TTFTMedian, row.TTFTStd, row.TTFTP99 = l.MeanMs, l.MedianMs, l.StdMs, l.P99Ms
	}
	if l := r.TPOT; l != nil {
		row.TPOTMean, row.TPOTMedian, row.TPOTStd, row.TPOTP99 = l.MeanMs, l.MedianMs, l.StdMs, l.P99Ms
	}
	if l := r.ITL; l != nil {
		row.ITLMean, row.ITLMedian, row.ITLStd, row.ITLP99 = l.MeanMs, l.MedianMs, l.StdMs, l.P99Ms
	}
	if l := r.E2EL; l != nil {
		row.E2ELMean, row.E2ELMedian, row.E2ELStd, row.E2ELP99 = l.MeanMs, l.MedianMs, l.StdMs, l.P99Ms
	}
	return row, nil
}

func stated[T any](r catalog.Result, field string, value T) *T {
	if !r.States(field) {
		return nil
	}
	return &value
}

// object is a map as JSON, which sorts its keys; nothing is the empty object.
func object[T any](m map[string]T) (string, error) {
	if len(m) == 0 {
		return "{}", nil
	}
	text, err := json.Marshal(m)
	return string(text), err
}

// Columns are the names of a row's columns, in order.
func Columns() []string {
	row := reflect.TypeFor[Row]()
	names := make([]string, row.NumField())
	for n := range names {
		names[n], _, _ = strings.Cut(row.Field(n).Tag.Get("parquet"), ",")
	}
	return names
}

func writeCSV(w io.Writer, results iter.Seq2[catalog.Result, error]) error {
	table := csv.NewWriter(w)
	if err := table.Write(Columns()); err != nil {
		return err
	}
	for r, err := range results {
		if err != nil {
			return err
		}
		row, err := RowOf(r)
		if err != nil {
			return err
		}
		if err := table.Write(cells(row)); err != nil {
			return err
		}
	}
	table.Flush()
	return table.Error()
}

func cells(row Row) []string {
	values := reflect.ValueOf(row)
	out := make([]string, values.NumField())
	for n := range out {
		switch v := values.Field(n).Interface().(type) {
		case string:
			out[n] = v
		case *int64:
			if v != nil {
				out[n] = strconv.FormatInt(*v, 10)
			}
		case *float64:
			if v != nil {
				out[n] = strconv.FormatFloat(*v, 'g', -1, 64)
			}
		}
	}
	return out
}

// rowsPerGroup bounds what Parquet keeps in memory before it writes.
const rowsPerGroup = 10000

func writeParquet(w io.Writer, results iter.Seq2[catalog.Result, error]) error {
	table := parquet.NewGenericWriter[Row](w, parquet.MaxRowsPerRowGroup(rowsPerGroup), parquet.Compression(&parquet.Zstd), parquet.CreatedBy("spotbench", "1", ""))
	for r, err := range results {
		if err != nil {
			return err // without its footer the file cannot be taken for a whole one
		}
		row, err := RowOf(r)
		if err != nil {
			return err
		}
		if _, err := table.Write([]Row{row}); err != nil {
			return err
		}
	}
	return table.Close()
}
