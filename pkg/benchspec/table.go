// SPDX-License-Identifier: Apache-2.0

package benchspec

import (
	"slices"
	"strings"
)

// Annotation is one row of the contract's table.
type Annotation struct {
	// Name is the whole name, with Prefix.
	Name string
	// Type is what its value is: "duration", "memory quantity".
	Type string
	// Example is a right value.
	Example string
	// Meaning is one or two sentences for the person who writes the pod.
	Meaning string
	// Default is what holds when the annotation is absent, in words.
	Default string
	// Writer is who writes it: "you" or "scheduler".
	Writer string
}

// Who writes an annotation.
const (
	WriterUser      = "you"
	WriterScheduler = "scheduler"
)

type row struct {
	Annotation
	kind kind
	// parse reads a value into the spec and returns what is wrong with it, "" when
	// nothing is; nil for annotations that Spotbench writes.
	parse func(value string, into *Spec) (problem string)
}

var table = []row{
	user(AnnotationGPUModel, kindModels, "H100-80GB, A100-80GB",
		"Acceptable GPU models, most preferred first: canonical names, or the raw value of the node label `nvidia.com/gpu.product` for a card that the catalogue lacks. A node with an earlier model is taken before one with a later model, whatever the cost; among nodes of one model the cheapest to finish on wins. A pod that asks for MIG slices (`nvidia.com/mig-1g.10gb`) or for shares (`nvidia.com/gpu.shared`) names the card that they are of, or, as `A100-80GB-MIG-1g.10gb`, the slice. Models joined by `|` are as good as each other: of `H100-80GB, A100-80GB | A800-80GB` an A100 and an A800 are told apart by cost alone.",
		"every model, the cheapest to finish on wins",
		func(s *Spec, v preference) { s.GPUModels, s.ModelRanks = v.models, v.ranks }, parseModels),
	user(AnnotationGPUMemory, kindQuantity, "80Gi",
		"Least nominal memory per GPU, or per MIG slice where the pod asks for slices. Nominal is the size the card is sold as, N GB counted as N GiB, and not what its driver reports: `80Gi` accepts an H100-80GB, whose driver says 81559 MiB.",
		"any",
		func(s *Spec, v int64) { s.GPUMemoryBytes = v }, parseQuantity),
	user(AnnotationCapacity, kindCapacity, "spot",
		"Kind of capacity the pod may run on.",
		"`any`",
		func(s *Spec, v string) { s.Capacity = Capacity(v) }, kindCapacity.parseEnum),
	user(AnnotationMaxInterruptionRisk, kindProbability, "0.10",
		"Highest acceptable probability, from 0 to 1, that the run is interrupted before it is done. Nodes on which it is higher over `expected-duration` are refused.",
		"any",
		func(s *Spec, v float64) { s.MaxInterruptionRisk = &v }, parseProbability),
	user(AnnotationExpectedDuration, kindDuration, "45m",
		"Work left if the run is never interrupted, in hours, minutes and seconds (`1h30m`), at most 8760h. Risk and cost are reckoned over it.",
		"the scheduler's `defaultExpectedDuration` (1h)",
		func(s *Spec, v duration) { s.ExpectedDuration = v }, parseDuration),
	user(AnnotationDeadline, kindTimestamp, "2027-01-31T18:00:00Z",
		"When the run must be finished, as RFC 3339 time with zone. Nodes on which it is expected to finish later, interruptions counted, are refused; spot capacity falls out before on-demand does. While spot nodes suit the pod but are taken, it waits for them until on demand just makes it.",
		"none",
		func(s *Spec, v timestamp) { s.Deadline = v }, parseTimestamp),
	user(AnnotationCheckpointPath, kindPath, "/checkpoint",
		"Directory mount of a volume of the pod that is the checkpoint: it is saved periodically and on a notice, and restored before the next pod of the run starts.",
		"none: an interrupted run starts over",
		func(s *Spec, v string) { s.CheckpointPath = v }, parsePath),
	user(AnnotationCheckpointCommand, kindCommand, `["/bin/save", "--now"]`,
		"Command to run in the container before a checkpoint is taken, as a JSON list; it returns when the directory is consistent. Needs `checkpoint-path`; excludes `checkpoint-signal`.",
		"none: the directory is always consistent",
		func(s *Spec, v []string) { s.CheckpointCommand = v }, parseCommand),
	user(AnnotationCheckpointSignal, kindSignal, "SIGUSR1",
		"Signal to send to the container's main process before a checkpoint is taken. Needs `checkpoint-path`; excludes `checkpoint-command`.",
		"none: the directory is always consistent",
		func(s *Spec, v string) { s.CheckpointSignal = v }, kindSignal.parseEnum),
	user(AnnotationCheckpointInterval, kindInterval, "10m",
		"Time between periodic checkpoints, or `auto`: the interval at which saving costs as much as the work at risk (Young/Daly, from the measured cost and the node's risk). Needs `checkpoint-path`.",
		"`auto`",
		func(s *Spec, v Interval) { s.CheckpointInterval = v }, parseInterval),
	user(AnnotationResultsPath, kindPath, "/results",
		"Directory mount of a volume of the pod whose complete `*.json` files are imported into the catalog as they appear; the benchmark's image needs no change.",
		"none: nothing is imported",
		func(s *Spec, v string) { s.ResultsPath = v }, parsePath),
	user(AnnotationModel, kindName, "meta-llama/Llama-3.1-70B-Instruct",
		"Name of the language model under test that results are filed under.",
		"none: the result file's own",
		func(s *Spec, v string) { s.Model = v }, parseName),
	user(AnnotationBenchmark, kindName, "sharegpt-c64",
		"Name of the benchmark that results are filed under.",
		"none: the result file's own",
		func(s *Spec, v string) { s.Benchmark = v }, parseName),
	user(AnnotationIsolation, kindIsolation, "node",
		"`node`: no other pod may use the node's GPUs while this one runs, because a neighbour spoils a benchmark; GPUs that pods share are refused.",
		"`none`",
		func(s *Spec, v string) { s.Isolation = Isolation(v) }, kindIsolation.parseEnum),
	user(AnnotationRun, kindRun, "llama-70b-nightly-7",
		"Stable name of the run, the same on every pod that continues it and on no other, within the namespace. Only pods without a Job or workflow need it.",
		"from the Job (and completion index) or the workflow step, else the pod's name",
		func(s *Spec, v string) { s.Run = v }, parseRun),
	{Annotation: Annotation{
		Name: AnnotationPlacement, Type: "JSON object", Writer: WriterScheduler,
		Example: `{"node":"a100-spot-0","gpuModel":"A100-80GB","gpuCount":4,…}`,
		Meaning: "What the scheduler decided and why: node, pool, price, risk, expected cost and the nodes it refused. Only the scheduler may set it. A container reads it through the downward API.",
		Default: "absent until the pod is placed",
	}},
}

// user makes the row of an annotation that people write.
func user[T any](name string, k kind, example, meaning, fallback string, set func(*Spec, T), parse func(string) (T, string)) row {
	return row{
		Annotation: Annotation{Name: name, Type: k.title, Example: example, Meaning: meaning, Default: fallback, Writer: WriterUser},
		kind:       k,
		parse: func(value string, into *Spec) string {
			v, problem := parse(value)
			if problem == "" {
				set(into, v)
			}
			return problem
		},
	}
}

// Annotations lists the contract's table in its documented order.
func Annotations() []Annotation {
	out := make([]Annotation, len(table))
	for i := range table {
		out[i] = table[i].Annotation
	}
	return out
}

func rowOf(name string) *row {
	i := slices.IndexFunc(table, func(r row) bool { return r.Name == name })
	if i < 0 {
		return nil
	}
	return &table[i]
}

// rule is one condition on annotations taken together: annotation may not be
// there with (or, when needed is set, without) other.
type rule struct {
	annotation, other string
	needed            bool
	problem           string
}

var together = []rule{
	needs(AnnotationCheckpointCommand, AnnotationCheckpointPath),
	needs(AnnotationCheckpointSignal, AnnotationCheckpointPath),
	needs(AnnotationCheckpointInterval, AnnotationCheckpointPath),
	{annotation: AnnotationCheckpointSignal, other: AnnotationCheckpointCommand,
		problem: "cannot stand beside " + AnnotationCheckpointCommand + "; keep one of them"},
}

func needs(annotation, other string) rule {
	return rule{annotation: annotation, other: other, needed: true,
		problem: "means nothing without " + other + "; add it, for example " + other + ": " + exampleOf(other)}
}

// exampleOf is used while the table is being initialised too, by its rules.
func exampleOf(name string) string {
	if r := rowOf(name); r != nil {
		return r.Example
	}
	return ""
}

func (r rule) broken(annotations map[string]string) bool {
	_, has := annotations[r.annotation]
	_, hasOther := annotations[r.other]
	return has && hasOther != r.needed
}

// list joins values for a person: "a, b or c".
func list(values []string) string {
	if len(values) < 2 {
		return strings.Join(values, "")
	}
	last := len(values) - 1
	return strings.Join(values[:last], ", ") + " or " + values[last]
}
