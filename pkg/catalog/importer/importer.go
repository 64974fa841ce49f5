// SPDX-License-Identifier: Apache-2.0

// Package importer reads benchmark result files. It knows vLLM's (bench serve
// --save-result, and bench-runner's superset of it) and recognises others in
// order to refuse them by name. It never keeps generated texts.
package importer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// Bounds on a file.
const (
	// MaxBytes is the largest file, bytes. vLLM's detailed output of 10 000
	// requests has about 50 MB.
	MaxBytes = 64 << 20
	// MaxDepth is the deepest nesting of objects and lists. Real files have 4.
	MaxDepth = 32
	// maxProvenance is the largest object "spotbench", bytes.
	maxProvenance = 1 << 20
)

// VLLM is the format of vLLM's bench serve.
const VLLM = "vllm"

// Parsed is what a file has.
type Parsed struct {
	Format  string
	Results []catalog.Result
}

// FileError is what is wrong with a file, and where.
type FileError struct {
	File string
	// Field is the top-level field, if the fault is in one.
	Field string
	// Offset is the byte at which the fault, or the field's value, is.
	Offset int64
	// Problem says what is wrong and how to mend it.
	Problem string
}

func (e *FileError) Error() string {
	where := ""
	if e.Field != "" {
		where = fmt.Sprintf(", field %q", e.Field)
	}
	return fmt.Sprintf("file %q%s, at byte %d: %s", e.File, where, e.Offset, e.Problem)
}

// UnsupportedError is a file in a format that is recognised but not read.
type UnsupportedError struct {
	File, Format string
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("file %q is in the format of %s, which is not read yet; import files that vLLM's `vllm bench serve --save-result` or bench-runner wrote", e.File, e.Format)
}

// Parse reads a result file. Its name only serves for messages.
func Parse(file string, data []byte) (Parsed, error) {
	if len(data) > MaxBytes {
		return Parsed{}, &FileError{File: file, Problem: fmt.Sprintf("%d bytes are more than the %d a result file may have; save it without --save-detailed", len(data), MaxBytes)}
	}
	if format := textFormat(data); format != "" {
		return Parsed{}, &UnsupportedError{File: file, Format: format}
	}
	clean, err := scan(file, data)
	if err != nil {
		return Parsed{}, err
	}
	dec := json.NewDecoder(bytes.NewReader(clean.data))
	start, err := dec.Token()
	if err != nil {
		return Parsed{}, clean.syntax(file, err, dec)
	}
	if start == json.Delim('[') {
		return Parsed{}, arrayFormat(file, clean, dec)
	}
	if start != json.Delim('{') {
		return Parsed{}, &FileError{File: file, Problem: "it holds a single JSON value, not an object; import the JSON file that the benchmark saved"}
	}
	fields, err := readFields(file, clean, dec)
	if err != nil {
		return Parsed{}, err
	}
	if _, err := dec.Token(); err != nil {
		return Parsed{}, clean.syntax(file, err, dec)
	}
	if rest := bytes.TrimSpace(clean.data[dec.InputOffset():]); len(rest) > 0 {
		if rest[0] == '{' {
			return Parsed{}, &UnsupportedError{File: file, Format: "several JSON documents in one file (JSON Lines, as SGLang's bench_serving writes)"}
		}
		return Parsed{}, &FileError{File: file, Offset: clean.original(int64(bytes.LastIndex(clean.data, rest))), Problem: "something follows the JSON object; remove it"}
	}
	if format := objectFormat(fields); format != "" {
		return Parsed{}, &UnsupportedError{File: file, Format: format}
	}
	result, err := parseVLLM(file, fields)
	if err != nil {
		return Parsed{}, err
	}
	return Parsed{Format: VLLM, Results: []catalog.Result{result}}, nil
}

// field is a top-level field's value and where it was.
type field struct {
	raw    json.RawMessage
	offset int64
}

// readFields reads the fields of the object whose brace was just read. Python
// keeps the last of two fields of one name, and so do we.
func readFields(file string, clean scanned, dec *json.Decoder) (map[string]field, error) {
	fields := map[string]field{}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, clean.syntax(file, err, dec)
		}
		name, _ := key.(string) // inside an object the decoder gives strings here, or an error
		at := dec.InputOffset()
		var f field
		if err := dec.Decode(&f.raw); err != nil {
			return nil, clean.syntax(file, err, dec)
		}
		// The decoder stands before the colon; the value begins behind it.
		value := bytes.TrimLeft(clean.data[at:], ": \t\r\n")
		f.offset = clean.original(int64(len(clean.data) - len(value)))
		fields[name] = f
	}
	return fields, nil
}

// textFormat recognises formats that are no JSON.
func textFormat(data []byte) string {
	head := string(data[:min(len(data), 4096)])
	switch {
	case strings.Contains(head, "MLPerf Results Summary"):
		return "MLPerf LoadGen (mlperf_log_summary.txt)"
	case strings.Contains(head, ":::MLLOG"):
		return "MLPerf logging (mlperf_log_detail.txt)"
	}
	return ""
}

// objectFormat recognises other tools' JSON objects by fields that only they have.
func objectFormat(fields map[string]field) string {
	has := func(names ...string) bool {
		for _, n := range names {
			if _, ok := fields[n]; !ok {
				return false
			}
		}
		return true
	}
	switch {
	case has("load_summary", "successes"):
		return "inference-perf (stage or summary lifecycle metrics)"
	case has("hw", "tput_per_gpu"):
		return "InferenceMAX (aggregate)"
	case has("results", "configs", "versions"), has("lm_eval_version"):
		return "lm-evaluation-harness"
	case has("benchmarks") && (has("metadata") || has("args")):
		return "GuideLLM"
	case has("input_config", "request_throughput") && !has("model_id"):
		return "GenAI-Perf or AIPerf"
	}
	return ""
}

// arrayFormat says what a file is that begins with a list.
func arrayFormat(file string, clean scanned, dec *json.Decoder) error {
	var first map[string]json.RawMessage
	if dec.More() && dec.Decode(&first) == nil {
		fields := map[string]field{}
		for name := range first {
			fields[name] = field{}
		}
		if format := objectFormat(fields); format != "" {
			return &UnsupportedError{File: file, Format: format}
		}
		if _, ok := first["avg_ts"]; ok {
			return &UnsupportedError{File: file, Format: "llama-bench"}
		}
	}
	return &FileError{File: file, Offset: clean.original(0), Problem: "it holds a JSON list, not an object; import vLLM's files one by one"}
}
