// SPDX-License-Identifier: Apache-2.0

package importer_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/spotbench/spotbench/pkg/catalog/importer"
)

// Each format has a target of its own, that begins from its example: one target for all
// spends its time on the format that detection tries first.

func FuzzVLLM(f *testing.F)           { fuzz(f, importer.VLLM) }
func FuzzVLLMThroughput(f *testing.F) { fuzz(f, importer.VLLMThroughput) }
func FuzzVLLMLatency(f *testing.F)    { fuzz(f, importer.VLLMLatency) }
func FuzzInferencePerf(f *testing.F)  { fuzz(f, importer.InferencePerf) }
func FuzzGuideLLM(f *testing.F)       { fuzz(f, importer.GuideLLM) }
func FuzzGenAIPerf(f *testing.F)      { fuzz(f, importer.GenAIPerf) }
func FuzzAIPerf(f *testing.F)         { fuzz(f, importer.AIPerf) }
func FuzzLMEval(f *testing.F)         { fuzz(f, importer.LMEval) }
func FuzzMLPerf(f *testing.F)         { fuzz(f, importer.MLPerf) }
func FuzzSGLang(f *testing.F)         { fuzz(f, importer.SGLang) }
func FuzzLlamaBench(f *testing.F)     { fuzz(f, importer.LlamaBench) }
func FuzzLlamaBenchCSV(f *testing.F)  { fuzz(f, importer.LlamaBench+" as CSV") }
func FuzzInferenceMAX(f *testing.F)   { fuzz(f, importer.InferenceMAX) }
func FuzzExported(f *testing.F)       { fuzz(f, importer.Exported) }

// FuzzFormats is for what is of no format, and for the choice between them.
func FuzzFormats(f *testing.F) {
	f.Add([]byte(`{"model_id":"m","num_prompts":1,"completed":1,"duration":NaN,"p99_ttft_ms":-Infinity,"spotbench":{"segments":[]}}`))
	f.Add([]byte("\xef\xbb\xbf{\"a\\\"\": [[[]]]}"))
	for _, example := range examples {
		f.Add([]byte(example))
	}
	f.Fuzz(parses)
}

// FuzzRead is for what comes compressed, or pretends to.
func FuzzRead(f *testing.F) {
	for _, seed := range [][]byte{[]byte(minimal), {0x1f, 0x8b}, []byte("PK\x03\x04"), {0x28, 0xb5, 0x2f, 0xfd}, {}} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := importer.Read("f", bytes.NewReader(data))
		if err == nil && !bytes.HasPrefix(data, []byte{0x1f, 0x8b}) && !bytes.Equal(got, data) {
			t.Errorf("a file that is not compressed came out as another")
		}
	})
}

func fuzz(f *testing.F, format string) {
	example, ok := examples[format]
	if !ok {
		f.Fatalf("no example of %s", format)
	}
	f.Add([]byte(example))
	f.Add([]byte(example[:len(example)/2]))
	f.Add([]byte(strings.ReplaceAll(example, ": ", ": -")))
	f.Add([]byte(strings.NewReplacer("0", "1e308", "1", "null").Replace(example)))
	f.Fuzz(parses)
}

// parses checks what holds for any file: it is refused at a place that it has, or read as
// something that can be.
func parses(t *testing.T, data []byte) {
	got, err := importer.Parse("f.json", data)
	if err != nil {
		var file *importer.FileError
		if errors.As(err, &file) && (file.Offset < 0 || file.Offset > int64(len(data))) {
			t.Errorf("offset %d is outside the file of %d bytes", file.Offset, len(data))
		}
		return
	}
	if !slices.Contains(importer.Formats(), got.Format) || len(got.Results) == 0 {
		t.Errorf("%d results of format %q", len(got.Results), got.Format)
	}
	for _, r := range got.Results {
		if r.Completed > r.Requests || r.Completed < 0 || r.Failed < 0 || r.InputTokens < 0 || r.OutputTokens < 0 || r.DurationSeconds < 0 {
			t.Errorf("impossible result %+v", r)
		}
		for _, v := range []*float64{r.RequestThroughput, r.OutputThroughput, r.TotalTokenThroughput, r.RequestRate} {
			if v != nil && *v < 0 {
				t.Errorf("a rate below zero: %+v", r)
			}
		}
		if _, err := json.Marshal(r); err != nil {
			t.Errorf("the result cannot be written again: %v", err)
		}
	}
}
