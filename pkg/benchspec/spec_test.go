// SPDX-License-Identifier: Apache-2.0

package benchspec_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/spotbench/spotbench/pkg/benchspec"
)

// defaults is what a pod without annotations gets.
func defaults(change func(*benchspec.Spec)) benchspec.Spec {
	s := benchspec.Spec{
		Capacity:           benchspec.CapacityAny,
		Isolation:          benchspec.IsolationNone,
		CheckpointInterval: benchspec.Interval{Auto: true},
	}
	if change != nil {
		change(&s)
	}
	return s
}

func ptr(f float64) *float64 { return &f }

func TestParseReadsEachAnnotation(t *testing.T) {
	for name, test := range map[string]struct {
		annotations map[string]string
		want        benchspec.Spec
	}{
		"a pod without annotations gets the defaults": {nil, defaults(nil)},
		"annotations of others are ignored": {
			map[string]string{"example.com/gpu-model": "nonsense", "spotbench.dev": "x"}, defaults(nil)},
		"models keep their order and become canonical": {
			map[string]string{benchspec.AnnotationGPUModel: "NVIDIA-H100-80GB-HBM3, a100-80gb,H100-80GB"},
			defaults(func(s *benchspec.Spec) { s.GPUModels = []string{"H100-80GB", "A100-80GB"} })},
		"models joined by | are of one rank": {
			map[string]string{benchspec.AnnotationGPUModel: "H100-80GB, a100-80gb |A800-80GB, L4"},
			defaults(func(s *benchspec.Spec) {
				s.GPUModels, s.ModelRanks = []string{"H100-80GB", "A100-80GB", "A800-80GB", "L4-24GB"}, []int{0, 1, 1, 2}
			})},
		"a product missing from the catalogue is kept as it is": {
			map[string]string{benchspec.AnnotationGPUModel: "NVIDIA-RTX-9000-Imaginary"},
			defaults(func(s *benchspec.Spec) { s.GPUModels = []string{"NVIDIA-RTX-9000-Imaginary"} })},
		"80Gi is 80 x 2^30 bytes": {
			map[string]string{benchspec.AnnotationGPUMemory: "80Gi"},
			defaults(func(s *benchspec.Spec) { s.GPUMemoryBytes = 85_899_345_920 })},
		"80G is 80 x 10^9 bytes": {
			map[string]string{benchspec.AnnotationGPUMemory: "80G"},
			defaults(func(s *benchspec.Spec) { s.GPUMemoryBytes = 80_000_000_000 })},
		"capacity": {
			map[string]string{benchspec.AnnotationCapacity: "on-demand"},
			defaults(func(s *benchspec.Spec) { s.Capacity = benchspec.CapacityOnDemand })},
		"a risk of zero is a limit, unlike none": {
			map[string]string{benchspec.AnnotationMaxInterruptionRisk: "0"},
			defaults(func(s *benchspec.Spec) { s.MaxInterruptionRisk = ptr(0) })},
		"risk": {
			map[string]string{benchspec.AnnotationMaxInterruptionRisk: "0.10"},
			defaults(func(s *benchspec.Spec) { s.MaxInterruptionRisk = ptr(0.1) })},
		"duration of several units": {
			map[string]string{benchspec.AnnotationExpectedDuration: "1h30m"},
			defaults(func(s *benchspec.Spec) { s.ExpectedDuration = 90 * time.Minute })},
		"deadline with an offset is the same instant in UTC": {
			map[string]string{benchspec.AnnotationDeadline: "2027-01-31T18:00:00+02:00"},
			defaults(func(s *benchspec.Spec) { s.Deadline = time.Date(2027, 1, 31, 16, 0, 0, 0, time.UTC) })},
		"a path's closing slash does not matter": {
			map[string]string{benchspec.AnnotationCheckpointPath: "/data/ckpt/", benchspec.AnnotationResultsPath: "/results"},
			defaults(func(s *benchspec.Spec) { s.CheckpointPath, s.ResultsPath = "/data/ckpt", "/results" })},
		"checkpoint command": {
			map[string]string{benchspec.AnnotationCheckpointPath: "/c", benchspec.AnnotationCheckpointCommand: `["/bin/sh", "-c", "echo \"a\""]`},
			defaults(func(s *benchspec.Spec) {
				s.CheckpointPath, s.CheckpointCommand = "/c", []string{"/bin/sh", "-c", `echo "a"`}
			})},
		"checkpoint signal and fixed interval": {
			map[string]string{benchspec.AnnotationCheckpointPath: "/c", benchspec.AnnotationCheckpointSignal: "SIGUSR1", benchspec.AnnotationCheckpointInterval: "10m"},
			defaults(func(s *benchspec.Spec) {
				s.CheckpointPath, s.CheckpointSignal = "/c", "SIGUSR1"
				s.CheckpointInterval = benchspec.Interval{Every: 10 * time.Minute}
			})},
		"automatic interval": {
			map[string]string{benchspec.AnnotationCheckpointPath: "/c", benchspec.AnnotationCheckpointInterval: "auto"},
			defaults(func(s *benchspec.Spec) { s.CheckpointPath = "/c" })},
		"what results are filed under": {
			map[string]string{benchspec.AnnotationModel: "meta-llama/Llama-3.1-70B-Instruct", benchspec.AnnotationBenchmark: "sharegpt-c64", benchspec.AnnotationRun: "nightly-7"},
			defaults(func(s *benchspec.Spec) {
				s.Model, s.Benchmark, s.Run = "meta-llama/Llama-3.1-70B-Instruct", "sharegpt-c64", "nightly-7"
			})},
		"isolation": {
			map[string]string{benchspec.AnnotationIsolation: "node"},
			defaults(func(s *benchspec.Spec) { s.Isolation = benchspec.IsolationNode })},
		"what the scheduler wrote is not for the parser": {
			map[string]string{benchspec.AnnotationPlacement: "whatever"}, defaults(nil)},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := benchspec.Parse(test.annotations)
			if err != nil {
				t.Fatalf("Parse: %v", err)
			}
			if diff := cmp.Diff(test.want, got, cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })); diff != "" {
				t.Errorf("spec differs (-want +got):\n%s", diff)
			}
		})
	}
}

// wrongValues has, per annotation, values that neither the parser nor the
// admission policy may let through.
var wrongValues = map[string][]string{
	benchspec.AnnotationGPUModel:            {"", " ", ",", "H100-80GB,", "A100", "H100-80G", "pony", "NVIDIA-", "NVIDIA-bad product", "H100-80GB;A100-80GB", "A100-80GB-MIG-INVALID"},
	benchspec.AnnotationGPUMemory:           {"", "80 GB", "80GB", "0.5Gi", "80.0Gi", "-80Gi", "0", "0Gi", "1m", "0.3", "eighty", "80gi", "99999999999999Ti", "1e3", "+1Gi"},
	benchspec.AnnotationCapacity:            {"", "Spot", "spot ", "preemptible", "spot,on-demand"},
	benchspec.AnnotationMaxInterruptionRisk: {"", "10%", "1.1", "-0.1", "NaN", "Inf", "1e-1", "0,1", "2", "1.01"},
	benchspec.AnnotationExpectedDuration:    {"", "45", "0s", "-45m", "1d", "9000h", "8760h1s", "45 m", "PT45M", "1h-5m", "0h0m", "999999999h"},
	benchspec.AnnotationDeadline:            {"", "tomorrow", "2027-01-31", "2027-01-31T18:00:00", "2027-02-30T18:00:00Z", "2027-13-01T00:00:00Z", "2027-01-31 18:00:00Z", "0001-01-01T00:00:00Z", "2027-01-31T24:00:00Z"},
	benchspec.AnnotationCheckpointPath:      {"", "/", "checkpoint", "/a/../b", "/a/./b", "/a//b", "//", "/..", "/a\nb", "/a\x00b"},
	benchspec.AnnotationCheckpointCommand:   {"", "/bin/save", "[]", `[""]`, `["a",]`, `["a" "b"]`, `["a", 1]`, `{"a":"b"}`, `["a"] x`, "[\"a\nb\"]", `["\q"]`},
	benchspec.AnnotationCheckpointSignal:    {"", "USR1", "10", "SIGKILL", "sigusr1", "SIGSTOP"},
	benchspec.AnnotationCheckpointInterval:  {"", "Auto", "0s", "500ms", "10", "9000h", "never"},
	benchspec.AnnotationResultsPath:         {"", "/", "results", "/results/.."},
	benchspec.AnnotationModel:               {"", " llama", "a b", "-x", "modèle", strings.Repeat("x", 256)},
	benchspec.AnnotationBenchmark:           {"", "c 64", "\n"},
	benchspec.AnnotationIsolation:           {"", "Node", "gpu", "true"},
	benchspec.AnnotationRun:                 {"", "Upper", "a/b", "-a", "a-", "..", strings.Repeat("r", 129)},
}

// rightValues has values that both must let through, beside each row's example.
var rightValues = map[string][]string{
	benchspec.AnnotationGPUModel:            {"h100-80gb", "NVIDIA-H100-80GB-HBM3", "L4", "Tesla-T4", "nvidia-l4", "A100-SXM4-40GB-MIG-1g.5gb", "NVIDIA-New-Card", " H100-80GB ,A100-80GB "},
	benchspec.AnnotationGPUMemory:           {"1", "24G", "141Gi", "81920Mi"},
	benchspec.AnnotationCapacity:            {"spot", "on-demand", "any"},
	benchspec.AnnotationMaxInterruptionRisk: {"0", "1", "1.0", "0.05", ".5"},
	benchspec.AnnotationExpectedDuration:    {"45m", "1h30m", "1.5h", "90s", "8760h", "1500ms"},
	benchspec.AnnotationDeadline:            {"2027-01-31T18:00:00.25Z", "2027-01-31T18:00:00-07:00"},
	benchspec.AnnotationCheckpointPath:      {"/checkpoint", "/a/b.c/..d", "/a/", "/with space"},
	benchspec.AnnotationCheckpointCommand:   {`["/bin/save"]`, `["a", "", "\u00e9\n"]`, ` [ "a" ] `},
	benchspec.AnnotationCheckpointSignal:    {"SIGUSR2", "SIGTERM"},
	benchspec.AnnotationCheckpointInterval:  {"auto", "1s", "10m"},
	benchspec.AnnotationResultsPath:         {"/results"},
	benchspec.AnnotationModel:               {"mistralai/Mistral-7B-Instruct-v0.3", "a"},
	benchspec.AnnotationBenchmark:           {"sharegpt-c64"},
	benchspec.AnnotationIsolation:           {"node", "none"},
	benchspec.AnnotationRun:                 {"a", "nightly-7", "a.b_c"},
}

// with puts an annotation into a pod that has what it needs beside it.
func with(name, value string) map[string]string {
	annotations := map[string]string{name: value}
	if strings.HasPrefix(name, benchspec.Prefix+"checkpoint-") && name != benchspec.AnnotationCheckpointPath {
		annotations[benchspec.AnnotationCheckpointPath] = "/checkpoint"
	}
	return annotations
}

func TestEveryWrongValueIsRefusedByNameValueAndExample(t *testing.T) {
	for _, row := range benchspec.Annotations() {
		if row.Writer != benchspec.WriterUser {
			continue
		}
		if len(wrongValues[row.Name]) == 0 {
			t.Errorf("no wrong value of %s is tested", row.Name)
		}
		for _, value := range wrongValues[row.Name] {
			_, err := benchspec.Parse(with(row.Name, value))
			var problem *benchspec.Error
			if !errors.As(err, &problem) {
				t.Errorf("%s=%q: got error %v, want a *benchspec.Error", row.Name, value, err)
				continue
			}
			if problem.Annotation != row.Name || problem.Value != value {
				t.Errorf("%s=%q: the error is about %s=%q", row.Name, value, problem.Annotation, problem.Value)
			}
			for _, part := range []string{row.Name, row.Example} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%s=%q: error %q does not mention %q", row.Name, value, err, part)
				}
			}
		}
	}
}

func TestEveryRightValueAndEveryExampleIsAccepted(t *testing.T) {
	for _, row := range benchspec.Annotations() {
		if row.Writer != benchspec.WriterUser {
			continue
		}
		for _, value := range append([]string{row.Example}, rightValues[row.Name]...) {
			if _, err := benchspec.Parse(with(row.Name, value)); err != nil {
				t.Errorf("%s=%q: %v", row.Name, value, err)
			}
		}
	}
}

func TestParseReportsAllProblemsAtOnceInOrderOfNames(t *testing.T) {
	_, err := benchspec.Parse(map[string]string{
		benchspec.AnnotationGPUMemory: "80 GB",
		benchspec.AnnotationCapacity:  "cheap",
		benchspec.AnnotationGPUModel:  "A100",
	})
	want := `annotation spotbench.dev/capacity: "cheap" must be spot, on-demand or any; example of a right one: spot
annotation spotbench.dev/gpu-memory: "80 GB" must be a positive whole number with a unit that Kubernetes knows (Gi, Mi, G, M); example of a right one: 80Gi
annotation spotbench.dev/gpu-model: "A100" names no usable GPU model: "A100" comes in several kinds: write A100-80GB or A100-40GB; example of a right one: H100-80GB, A100-80GB`
	if err == nil || err.Error() != want {
		t.Errorf("got:\n%v\nwant:\n%s", err, want)
	}
}

func TestParseRefusesCombinationsThatContradict(t *testing.T) {
	for name, test := range map[string]struct {
		annotations map[string]string
		want        string
	}{
		"a command without a directory": {
			map[string]string{benchspec.AnnotationCheckpointCommand: `["/bin/save"]`},
			"means nothing without spotbench.dev/checkpoint-path"},
		"an interval without a directory": {
			map[string]string{benchspec.AnnotationCheckpointInterval: "auto"},
			"means nothing without spotbench.dev/checkpoint-path"},
		"both a command and a signal": {
			map[string]string{benchspec.AnnotationCheckpointPath: "/c", benchspec.AnnotationCheckpointCommand: `["/bin/save"]`, benchspec.AnnotationCheckpointSignal: "SIGUSR1"},
			"cannot stand beside spotbench.dev/checkpoint-command"},
		"a misspelt name": {
			map[string]string{benchspec.Prefix + "gpu-mode": "H100-80GB"},
			"did you mean spotbench.dev/gpu-model?"},
		"a name like none of ours": {
			map[string]string{benchspec.Prefix + "colour": "red"},
			"is under a name that Spotbench does not know"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := benchspec.Parse(test.annotations)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got error %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestOursIsTrueForPodsThatTakePart(t *testing.T) {
	for name, test := range map[string]struct {
		scheduler   string
		annotations map[string]string
		want        bool
	}{
		"our scheduler and an annotation":              {"spotbench", map[string]string{benchspec.AnnotationGPUModel: "L4"}, true},
		"our scheduler without annotations":            {"spotbench", nil, false},
		"another scheduler and placement annotations":  {"default-scheduler", map[string]string{benchspec.AnnotationGPUModel: "L4"}, false},
		"another scheduler and a checkpoint directory": {"default-scheduler", map[string]string{benchspec.AnnotationCheckpointPath: "/c"}, true},
		"another scheduler and results":                {"default-scheduler", map[string]string{benchspec.AnnotationResultsPath: "/r"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := benchspec.Ours(test.scheduler, test.annotations); got != test.want {
				t.Errorf("Ours(%q, %v) = %v, want %v", test.scheduler, test.annotations, got, test.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, row := range benchspec.Annotations() {
		f.Add(row.Name, row.Example)
		for _, v := range append(wrongValues[row.Name], rightValues[row.Name]...) {
			f.Add(row.Name, v)
		}
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		annotations := with(name, value)
		spec, err := benchspec.Parse(annotations)
		if err != nil {
			if !strings.Contains(err.Error(), name) && strings.HasPrefix(name, benchspec.Prefix) {
				t.Errorf("the error does not name %q: %v", name, err)
			}
			return
		}
		if spec.GPUMemoryBytes < 0 || spec.ExpectedDuration < 0 || spec.ExpectedDuration > 8760*time.Hour {
			t.Errorf("out of range: %+v", spec)
		}
		if r := spec.MaxInterruptionRisk; r != nil && !(*r >= 0 && *r <= 1) {
			t.Errorf("risk %v is no probability", *r)
		}
		for _, p := range []string{spec.CheckpointPath, spec.ResultsPath} {
			if p != "" && (!strings.HasPrefix(p, "/") || strings.Contains(p, "/../") || strings.HasSuffix(p, "/..") || p == "/") {
				t.Errorf("unsafe path %q", p)
			}
		}
		if i := spec.CheckpointInterval; !i.Auto && i.Every < time.Second {
			t.Errorf("interval %v", i)
		}
	})
}
