// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// llamaNumbers are the columns of llama-bench that are numbers; in CSV they
// stand in quotes like the others.
var llamaNumbers = map[string]bool{"n_prompt": true, "n_gen": true, "n_depth": true, "avg_ns": true, "stddev_ns": true, "avg_ts": true, "stddev_ts": true, "model_size": true, "model_n_params": true}

// parseLlamaBench reads one test of llama-bench: a prompt of n_prompt tokens, or
// n_gen tokens generated, or both, some times over, one after the other. Its
// times are nanoseconds and of a whole repetition; its throughput is of prompt
// and generated tokens together, so that it is that of the output only where
// there was no prompt.
func parseLlamaBench(r *reader) []catalog.Result {
	if !r.needs("llama-bench", "build_commit", "model_filename", "n_prompt", "n_gen", "avg_ns", "avg_ts") {
		return nil
	}
	prompt, generated, throughput := r.count("n_prompt"), r.count("n_gen"), r.positive("avg_ts")
	var l latency
	l.set("mean", r.scaled("avg_ns", nanoseconds))
	l.set("std", r.scaled("stddev_ns", nanoseconds))
	m := metrics{}
	m.set("tokens_per_second_std", r.positive("stddev_ts"))
	m.set("model_bytes", r.positive("model_size"))
	m.set("model_parameters", r.positive("model_n_params"))
	one := int64(1)
	result := catalog.Result{
		Tool: "llama-bench", ToolVersion: r.settings(nil, "build_commit")["build_commit"], Model: r.text("model_filename"), Backend: r.settings(nil, "backends")["backends"],
		Concurrency: &one, TotalTokenThroughput: throughput, E2EL: l.result(), Metrics: m.result(),
		Settings: r.settings(nil, "model_type", "gpu_info", "cpu_info", "n_prompt", "n_gen", "n_depth", "n_batch", "n_ubatch", "n_threads", "n_gpu_layers", "type_k", "type_v", "flash_attn", "split_mode", "tensor_split", "build_number", "test_time"),
	}
	if prompt == 0 {
		result.OutputThroughput = throughput
	}
	// A repetition is one request; CSV does not tell how many there were.
	if samples := r.list("samples_ns"); samples != nil {
		result.Requests = int64(len(samples))
		result.Completed = result.Requests
		if prompt > 1<<40 || generated > 1<<40 {
			r.wrong("n_prompt", "%d and %d tokens are too many", prompt, generated)
		}
		result.InputTokens, result.OutputTokens = prompt*result.Requests, generated*result.Requests
		for _, sample := range samples {
			var ns float64
			if err := json.Unmarshal(sample, &ns); err != nil || ns < 0 {
				r.wrong("samples_ns", "%s is no time", short(sample))
				break
			}
			result.DurationSeconds += ns * nanoseconds / seconds
		}
	} else {
		result.Unknown = []string{requests, completed, duration, inputTokens, outputTokens}
	}
	return []catalog.Result{result}
}

// parseLlamaBenchCSV reads llama-bench -o csv.
func parseLlamaBenchCSV(file string, data []byte) (Parsed, error) {
	rows := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))))
	header, err := rows.Read()
	if err != nil {
		return Parsed{}, csvError(file, err, 0)
	}
	if len(header) > maxFields {
		return Parsed{}, &FileError{File: file, Problem: fmt.Sprintf("it has more than %d columns, which llama-bench does not write", maxFields)}
	}
	var documents []map[string]field
	for {
		offset := rows.InputOffset()
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Parsed{}, csvError(file, err, offset)
		}
		if len(documents) == MaxResults {
			return Parsed{}, &FileError{File: file, Offset: offset, Problem: fmt.Sprintf("it has more than the %d rows a file may have; split it", MaxResults)}
		}
		fields := make(map[string]field, len(row))
		for n, value := range row {
			raw, err := json.Marshal(value)
			if err != nil {
				return Parsed{}, csvError(file, err, offset)
			}
			if _, err := strconv.ParseFloat(value, 64); err == nil && llamaNumbers[header[n]] && json.Valid([]byte(value)) {
				raw = []byte(value)
			}
			fields[header[n]] = field{raw: raw, offset: offset}
		}
		documents = append(documents, fields)
	}
	return parseDocuments(file, slices.Values(documents), nil)
}

func csvError(file string, err error, offset int64) error {
	return &FileError{File: file, Offset: offset, Problem: fmt.Sprintf("not CSV: %v; import the file as llama-bench wrote it", err)}
}
