// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// exportedLine is a line of a catalog's own export.
func exportedLine(n int) string {
	return fmt.Sprintf(`{"id":"%d","importID":"i","run":"a/b","format":"vllm","model":"m","concurrency":%d,"requests":10,"completed":10,"durationSeconds":2.5,"ttft":{"meanMs":1.5},"settings":{"a":"}\"{"},"unknown":["failed"]}`, n, n)
}

// TestAFileOfManyDocumentsIsReadThePlainWayAndNoOther tells which files parsePlain takes,
// and that what it makes of them is what parseAny does.
func TestAFileOfManyDocumentsIsReadThePlainWayAndNoOther(t *testing.T) {
	var many strings.Builder
	for n := range 3 * fewestPerWorker {
		many.WriteString(exportedLine(n) + "\n")
	}
	two := exportedLine(1) + "\n" + exportedLine(2)
	for name, tt := range map[string]struct {
		file  string
		plain bool
	}{
		"lines for several goroutines":                     {many.String(), true},
		"two lines, the last without its end":              {two, true},
		"documents over several lines":                     {strings.ReplaceAll(two, ",", " ,\r\n\t"), true},
		"documents without anything between them":          {exportedLine(1) + exportedLine(2), true},
		"a name that is escaped":                           {strings.ReplaceAll(two, `"model"`, `"mod\u0065l"`), true},
		"a field twice, the last of which holds":           {strings.ReplaceAll(two, `"model"`, `"model":"first","model"`), true},
		"an object twice, of which the last holds":         {strings.ReplaceAll(two, `"ttft"`, `"ttft":{"p99Ms":2},"ttft"`), true},
		"a field that is absent":                           {strings.ReplaceAll(two, `"requests":10,`, ""), false},
		"NaN, which is null":                               {strings.ReplaceAll(two, "2.5", "NaN"), true},
		"a single document":                                {exportedLine(1), false},
		"a list":                                           {"[" + exportedLine(1) + "," + exportedLine(2) + "]", false},
		"a last line that is cut off":                      {two[:len(two)-20], false},
		"a line that is no JSON":                           {two + "\n" + `{"id":"3","importID":}`, false},
		"a value behind the documents":                     {two + "\n5", false},
		"documents of two formats":                         {two + "\n" + `{"hw":"h100","tput_per_gpu":1}`, false},
		"formats that differ from one goroutine's to next": {many.String() + `{"hw":"h100","tput_per_gpu":1}`, false},
		"a field that no result has":                       {strings.ReplaceAll(two, `"model"`, `"mood"`), false},
		"more documents than a file may have":              {strings.Repeat("{} ", MaxResults+1), false},
		"nothing":                                          {"", false},
	} {
		t.Run(name, func(t *testing.T) {
			if is := likeAny(t, []byte(tt.file)); is != tt.plain {
				t.Errorf("read the plain way: %t, want %t", is, tt.plain)
			}
		})
	}
}

// likeAny reports whether parsePlain reads the file, and fails if parseAny reads it
// otherwise.
func likeAny(t *testing.T, data []byte) bool {
	t.Helper()
	clean, err := scan("f", data)
	if err != nil {
		return false
	}
	plain, ok := parsePlain("f", clean)
	if !ok {
		return false
	}
	want, err := parseAny("f", clean)
	if err != nil {
		t.Fatalf("the plain way reads what cannot be read: %v", err)
	}
	if diff := cmp.Diff(want, plain); diff != "" {
		t.Fatalf("(-any +plain)\n%s", diff)
	}
	return true
}

func FuzzThePlainWayReadsNothingOtherwise(f *testing.F) {
	f.Add([]byte(exportedLine(1) + "\n" + exportedLine(2)))
	f.Add([]byte(`{"model_id":"m","num_prompts":10,"completed":10,"duration":2}` + "\n" + `{"model_id":"m","num_prompts":10,"completed":9,"duration":NaN}`))
	f.Add([]byte(`{"hw":"h100","tput_per_gpu":1,"":{}}{"hw":"\ud800","tput_per_gpu":[{"a":"\\"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) { likeAny(t, data) })
}
