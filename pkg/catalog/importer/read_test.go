// SPDX-License-Identifier: Apache-2.0

package importer_test

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spotbench/spotbench/pkg/catalog/importer"
	"github.com/spotbench/spotbench/pkg/catalog/internal/heap"
)

// spaces is a source of n spaces, which take no memory.
func spaces(n int64) io.Reader { return io.LimitReader(endless{}, n) }

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for n := range p {
		p[n] = ' '
	}
	return len(p), nil
}

func zipped(t *testing.T, from io.Reader) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := io.Copy(z, from); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestAnyFileIsReadOrRefusedWithBoundedMemory(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector's own memory would be measured; run without -race")
	}
	const gigabyte = 1 << 30
	// Reading grows its buffer in steps, JSON is held once as it came, once as the decoder
	// buffers it and once in pieces, and the collector lets go of none of it at once: ten
	// times the largest file. A list of a million entries takes the most, almost nine times.
	const most = 10 * importer.MaxBytes
	fill := func(before, repeat, after string) io.Reader {
		n := (importer.MaxBytes - len(before) - len(after)) / len(repeat)
		return strings.NewReader(before + strings.Repeat(repeat, n) + after)
	}
	tests := map[string]struct {
		content io.Reader
		want    string
	}{
		"a file of 1 GB":                 {spaces(gigabyte), "more than the 67108864 bytes"},
		"a gzip bomb of 1 GB":            {bytes.NewReader(zipped(t, spaces(gigabyte))), "more than the 67108864 bytes"},
		"a gzip bomb in a gzip bomb":     {bytes.NewReader(zipped(t, bytes.NewReader(zipped(t, spaces(gigabyte))))), "not JSON"},
		"a gzip that was cut":            {bytes.NewReader(zipped(t, strings.NewReader(minimal))[:20]), "its gzip is damaged"},
		"a gzip in its first bytes only": {strings.NewReader("\x1f\x8bno"), "not gzip"},
		"64 MB of NaN":                   {fill(`{"a":[NaN`, ",NaN", "]}"), "more than 1048576 NaN"},
		"64 MB of brackets":              {fill(`[`, "[", ""), "nested deeper"},
		"64 MB of documents":             {fill(minimal, "{}", ""), "more than the 10000 documents"},
		"64 MB of entries":               {fill("[{}", ",{}", "]"), "more than the 10000 entries"},
		"64 MB of errors":                {fill(strings.TrimSuffix(minimal, "}")+`,"errors":[0`, ",0", "]}"), `more than 1048576 entries`},
		"64 MB of one text":              {fill(`{"model_id":"`, "x", `","num_prompts":1,"completed":1,"duration":1}`), "too long for a name"},
		"64 MB of lines of MLPerf":       {fill("MLPerf Results Summary\n", "a: b\n", ""), "it lacks SUT name"},
		"64 MB of one line of MLPerf":    {fill("MLPerf Results Summary\n", "a", ""), "a line is too long"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var err error
			used := heap.Peak(func() {
				var data []byte
				if data, err = importer.Read("r.json", tt.content); err == nil {
					_, err = importer.Parse("r.json", data)
				}
			})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %.300v, want one with %s", err, tt.want)
			}
			if err != nil && len(err.Error()) > 4096 {
				t.Errorf("the error itself has %d bytes", len(err.Error()))
			}
			if used > most {
				t.Errorf("%d MiB of memory, want at most %d", used>>20, most>>20)
			}
			t.Logf("%d MiB", used>>20)
		})
	}
}

func TestACompressedFileIsTheFileItself(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.json.gz")
	if err := os.WriteFile(path, zipped(t, strings.NewReader(minimal)), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := importer.ReadFile(path, "r.json.gz")
	if err != nil || string(got) != minimal {
		t.Errorf("read %q, %v", got, err)
	}
	if _, err := importer.ReadFile(t.TempDir(), "folder"); err == nil {
		t.Error("a folder is read")
	}
	if _, err := importer.ReadFile(filepath.Join(t.TempDir(), "none"), "none"); !os.IsNotExist(err) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestOtherCompressionsAreRefusedByName(t *testing.T) {
	var archive bytes.Buffer
	z := zip.NewWriter(&archive)
	w, err := z.Create("bomb.json")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(w, spaces(64<<20)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"zip archives": archive.String(), "zstd": "\x28\xb5\x2f\xfd\x00", "xz": "\xfd7zXZ\x00", "bzip2": "BZh91AY"} {
		_, err := importer.Read("r", strings.NewReader(content))
		var unsupported *importer.UnsupportedError
		if !errors.As(err, &unsupported) || unsupported.Format != name {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// importsFile is set for this program when it is to read one file and end.
const importsFile = "SPOTBENCH_TEST_IMPORTS_FILE"

func TestMain(m *testing.M) {
	file := os.Getenv(importsFile)
	if file == "" {
		os.Exit(m.Run())
	}
	data, err := importer.ReadFile(file, "r")
	if err == nil {
		var parsed importer.Parsed
		parsed, err = importer.Parse("r", data)
		fmt.Printf("%d results\n", len(parsed.Results))
	}
	if err != nil {
		fmt.Println(err)
	}
	// What the system says of a process after its end counts what it was forked from as well.
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "VmHWM:") {
			fmt.Print(line)
		}
	}
}

// TestAHugeFileIsSurvivedByAWholeProcess measures the resident memory of a process that
// does nothing but read a file, as `catalog-api import` does.
func TestAHugeFileIsSurvivedByAWholeProcess(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector's own memory would be measured; run without -race")
	}
	const gigabyte = 1 << 30
	write := func(content io.Reader) string {
		path := filepath.Join(t.TempDir(), "r")
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(f, content); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		return path
	}
	detailed := strings.TrimSuffix(minimal, "}") + `,"errors":[""` + strings.Repeat(`,""`, 900_000) + `],"generated_texts":["` + strings.Repeat("x", 40<<20) + `"]}`
	tests := map[string]struct {
		content io.Reader
		want    string
		most    int64 // MiB
	}{
		"a small file":            {strings.NewReader(minimal), "1 results", 64},
		"a file of 1 GB":          {spaces(gigabyte), "more than the 67108864 bytes", 256},
		"a gzip bomb of 1 GB":     {bytes.NewReader(zipped(t, spaces(gigabyte))), "more than the 67108864 bytes", 256},
		"the largest vLLM detail": {strings.NewReader(detailed), "1 results", 512},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), importsFile+"="+write(tt.content))
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), tt.want) {
				t.Fatalf("%v: %.300s, want %s", err, out, tt.want)
			}
			_, told, _ := strings.Cut(string(out), "VmHWM:")
			var kibibytes int64
			if _, err := fmt.Sscan(told, &kibibytes); err != nil {
				t.Skipf("this system does not tell how much memory a process had: %v", err)
			}
			if kibibytes>>10 > tt.most {
				t.Errorf("%d MiB resident, want at most %d", kibibytes>>10, tt.most)
			}
			t.Logf("%d MiB resident at most", kibibytes>>10)
		})
	}
}

func TestParseReadsRealFilesOfMLPerf(t *testing.T) {
	for file, want := range map[string]struct {
		scenario          string
		throughput, p99Ms float64
	}{"bert-99-server-h100x8.txt": {"Server", 32521.9, 41.084194}, "bert-99-offline-h100x8.txt": {"Offline", 45106.2, 671261.774765}} {
		data, err := os.ReadFile(filepath.Join("testdata", "mlperf", file))
		if err != nil {
			t.Fatal(err)
		}
		got, err := importer.Parse(file, data)
		if err != nil || len(got.Results) != 1 {
			t.Fatalf("%s: %v", file, err)
		}
		r := got.Results[0]
		if r.Settings["scenario"] != want.scenario || r.Settings["validity"] != "VALID" || *r.RequestThroughput != want.throughput || math.Abs(*r.E2EL.P99Ms-want.p99Ms) > 1e-9 || len(r.E2EL.PercentilesMs) != 6 {
			t.Errorf("%s: %+v", file, r)
		}
	}
}
