// SPDX-License-Identifier: Apache-2.0

package benchspec

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Prefix begins every annotation of the contract.
const Prefix = "spotbench.dev/"

// SchedulerName is the spec.schedulerName of pods that Spotbench places.
const SchedulerName = "spotbench"

// How a node says that it is about to be interrupted: the node agent sets both, the
// scheduler refuses a node with either.
const (
	// TaintInterruption is the key; its value is the kind of notice, its effect
	// NoSchedule.
	TaintInterruption = Prefix + "interruption"
	// ConditionSpotInterruption is the type; status True is a notice, its reason
	// says of what kind.
	ConditionSpotInterruption = "SpotInterruption"
	// TaintGPUUnhealthy is the key; its value says what is wrong with a GPU of the
	// node, its effect is NoSchedule.
	TaintGPUUnhealthy = Prefix + "gpu-unhealthy"
	// ConditionGPUHealthy is the type; status False is a GPU that cannot be relied on,
	// its reason says why. Unknown means that the GPUs cannot be read.
	ConditionGPUHealthy = "GPUHealthy"
	// ConditionRebalance is the type of a warning short of a notice: the cloud sees a
	// raised risk. The scheduler counts it as that and does not refuse the node.
	ConditionRebalance = "SpotRebalanceRecommended"
)

// The annotations of the contract; Annotations has their meaning.
const (
	AnnotationGPUModel            = Prefix + "gpu-model"
	AnnotationGPUMemory           = Prefix + "gpu-memory"
	AnnotationCapacity            = Prefix + "capacity"
	AnnotationMaxInterruptionRisk = Prefix + "max-interruption-risk"
	AnnotationExpectedDuration    = Prefix + "expected-duration"
	AnnotationDeadline            = Prefix + "deadline"
	AnnotationCheckpointPath      = Prefix + "checkpoint-path"
	AnnotationCheckpointCommand   = Prefix + "checkpoint-command"
	AnnotationCheckpointSignal    = Prefix + "checkpoint-signal"
	AnnotationCheckpointInterval  = Prefix + "checkpoint-interval"
	AnnotationResultsPath         = Prefix + "results-path"
	AnnotationModel               = Prefix + "model"
	AnnotationBenchmark           = Prefix + "benchmark"
	AnnotationIsolation           = Prefix + "isolation"
	AnnotationRun                 = Prefix + "run"
	AnnotationPlacement           = Prefix + "placement"
)

// Capacity is the kind of capacity a pod accepts.
type Capacity string

// Kinds of capacity.
const (
	CapacitySpot     Capacity = "spot"
	CapacityOnDemand Capacity = "on-demand"
	CapacityAny      Capacity = "any"
)

// Isolation is what may run beside a pod on its node's GPUs.
type Isolation string

// Kinds of isolation.
const (
	// IsolationNone lets other pods use the node's other GPUs.
	IsolationNone Isolation = "none"
	// IsolationNode keeps every other pod off the node's GPUs.
	IsolationNode Isolation = "node"
)

// Interval is how often a checkpoint is taken.
type Interval struct {
	// Auto leaves it to the agent: Young/Daly from measured cost and risk.
	Auto bool
	// Every is the fixed interval, when Auto is false.
	Every time.Duration
}

// Spec is what a pod asks of Spotbench. What the pod does not say has the default
// of the table; fields without one are zero.
type Spec struct {
	// GPUModels are acceptable models by canonical name (pkg/gpu), most preferred
	// first; empty accepts every model.
	GPUModels []string
	// ModelRanks has the rank of each of GPUModels, ascending: models of one rank are
	// as good as each other. nil ranks each by its place.
	ModelRanks []int
	// GPUMemoryBytes is the least nominal memory per GPU; 0 accepts any.
	GPUMemoryBytes int64
	Capacity       Capacity
	// MaxInterruptionRisk is the highest acceptable probability of an interruption
	// during the run; nil accepts any.
	MaxInterruptionRisk *float64
	// ExpectedDuration is the work left if never interrupted; 0 when not said.
	ExpectedDuration time.Duration
	// Deadline is when the run must be finished; zero when there is none.
	Deadline time.Time
	// CheckpointPath is the directory that is the checkpoint; "" when the run cannot
	// be resumed.
	CheckpointPath string
	// CheckpointCommand is run in the container, CheckpointSignal sent to its main
	// process, before the directory is read. At most one is set.
	CheckpointCommand  []string
	CheckpointSignal   string
	CheckpointInterval Interval
	// ResultsPath is the directory whose result files go to the catalog.
	ResultsPath string
	// Model and Benchmark are what the results are filed under.
	Model, Benchmark string
	Isolation        Isolation
	// Run is the stable name the pod gave its run; "" when it gave none. RunKey has
	// the name in every case.
	Run string
}

// Resumable says whether a run may continue elsewhere from a checkpoint.
func (s Spec) Resumable() bool { return s.CheckpointPath != "" }

// Error is one thing wrong with one annotation.
type Error struct {
	Annotation string // with Prefix
	Value      string // as found
	Problem    string // what is wrong: "is not a duration"
	Example    string // a right value; "" when the annotation has to go
}

// Error names the annotation, its value (cut when long), the problem and an
// example of a right value.
func (e *Error) Error() string {
	msg := fmt.Sprintf("annotation %s: %s %s", e.Annotation, quote(e.Value), e.Problem)
	if e.Example != "" {
		msg += "; example of a right one: " + e.Example
	}
	return msg
}

// longestQuoted bounds how much of a wrong value an error repeats, in bytes.
const longestQuoted = 80

func quote(v string) string {
	if len(v) > longestQuoted {
		return fmt.Sprintf("%q…", strings.ToValidUTF8(v[:longestQuoted], ""))
	}
	return fmt.Sprintf("%q", v)
}

// Parse reads a pod's annotations. It reports everything wrong at once: the error
// joins one *Error per problem, in order of the annotations' names. The Spec is
// usable only when the error is nil. Annotations outside Prefix are ignored.
func Parse(annotations map[string]string) (Spec, error) {
	spec := Spec{Capacity: CapacityAny, Isolation: IsolationNone, CheckpointInterval: Interval{Auto: true}}
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(annotations)) {
		if !strings.HasPrefix(name, Prefix) {
			continue
		}
		value := annotations[name]
		row := rowOf(name)
		if row == nil {
			problems = append(problems, &Error{Annotation: name, Value: value, Problem: "is under a name that Spotbench does not know" + didYouMean(name)})
			continue
		}
		if row.parse == nil {
			continue // written by Spotbench
		}
		if problem := row.parse(value, &spec); problem != "" {
			problems = append(problems, &Error{Annotation: name, Value: value, Problem: problem, Example: row.Example})
		}
	}
	for _, rule := range together {
		if rule.broken(annotations) {
			problems = append(problems, &Error{Annotation: rule.annotation, Value: annotations[rule.annotation], Problem: rule.problem})
		}
	}
	return spec, errors.Join(problems...)
}

// Ours says whether a pod takes part in the contract: it carries one of its
// annotations and either asks to be placed by Spotbench or asks the agent for
// checkpoints or for its results to be kept.
func Ours(schedulerName string, annotations map[string]string) bool {
	if annotations[AnnotationCheckpointPath] != "" || annotations[AnnotationResultsPath] != "" {
		return true
	}
	if schedulerName != SchedulerName {
		return false
	}
	for name := range annotations {
		if rowOf(name) != nil {
			return true
		}
	}
	return false
}

func didYouMean(name string) string {
	// One slip of the keyboard: a letter more, less, changed, or two swapped.
	for _, row := range table {
		if oneSlip(name, row.Name) {
			return "; did you mean " + row.Name + "?"
		}
	}
	return ""
}

// oneSlip is true for two different names that agree but for at most two
// neighbouring letters.
func oneSlip(a, b string) bool {
	p := 0
	for p < len(a) && p < len(b) && a[p] == b[p] {
		p++
	}
	s := 0
	for s < len(a)-p && s < len(b)-p && a[len(a)-1-s] == b[len(b)-1-s] {
		s++
	}
	return len(a)-p-s <= 2 && len(b)-p-s <= 2
}

// ModelRank is how preferred the model at an index of GPUModels is, less is more.
func (s Spec) ModelRank(index int) int {
	if index < len(s.ModelRanks) {
		return s.ModelRanks[index]
	}
	return index
}
