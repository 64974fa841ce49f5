// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/gpu"
)

// Reason is why a node is refused.
type Reason string

// Reasons, in the order they are looked for: a node has the first that applies.
const (
	ReasonNoGPUs     Reason = "NoGPUs"
	ReasonInvalid    Reason = "InvalidGPUs"
	ReasonModel      Reason = "GPUModel"
	ReasonMemory     Reason = "GPUMemory"
	ReasonShared     Reason = "SharedGPUs"
	ReasonCapacity   Reason = "CapacityType"
	ReasonNotice     Reason = "InterruptionNotice"
	ReasonRisk       Reason = "InterruptionRisk"
	ReasonNeverDone  Reason = "NeverFinishes"
	ReasonDeadline   Reason = "Deadline"
	ReasonWaiting    Reason = "WaitsForSpot"
	ReasonNeighbours Reason = "Neighbours"
	ReasonIsolated   Reason = "IsolatedPod"
	ReasonRoom       Reason = "FreeGPUs"
)

// longestRun is the expected time, in hours, beyond which a run does not finish: a
// century. It keeps every estimate of a node in use finite.
const longestRun = 100 * 365 * 24

// Refusal says why a node will not do. A nil Refusal means that it will.
type Refusal struct {
	Reason Reason
	// Detail completes "the node has …" and "the nodes have …", with the figures
	// found and wanted: "A100-80GB, wanted H100-80GB".
	Detail string
	// Temporary is true when other pods are in the way, so that their end (or
	// preemption) would change it.
	Temporary bool
}

// String is the refusal of one node: "has A100-80GB, wanted H100-80GB".
func (r *Refusal) String() string { return "has " + r.Detail }

// Check says whether a node meets what the pod asks for. Whether it has free GPUs
// enough is not asked here; see CheckRoom.
func Check(r Request, n Node) *Refusal {
	for _, check := range []func(Request, Node) *Refusal{CheckGPUs, checkCapacity, checkRisk, CheckNeighbours} {
		if refusal := check(r, n); refusal != nil {
			return refusal
		}
	}
	return nil
}

// CheckGPUs is the part of Check that asks only what GPUs the node has.
func CheckGPUs(r Request, n Node) *Refusal {
	if r.GPUs == 0 {
		return nil
	}
	wanted := wantedGPUs(r)
	switch {
	case r.Resource.Claimed && !n.HasGPUs:
		return refuse(ReasonNoGPUs, "no GPUs in a ResourceSlice, wanted %s", wanted)
	case r.Resource.Claimed && n.TotalGPUs == 0:
		return refuse(ReasonNoGPUs, "no GPUs that the pod's claims select, wanted %s", wanted)
	case !n.HasGPUs && n.TotalGPUs == 0:
		return refuse(ReasonNoGPUs, "no GPUs, wanted %s", wanted)
	case !r.Resource.Whole() && n.TotalGPUs == 0:
		return refuse(ReasonNoGPUs, "no %s, wanted %s", r.Resource.Name(), wanted)
	case n.GPUs.Invalid != "":
		return refuse(ReasonInvalid, "GPUs that cannot be used: %s", n.GPUs.Invalid)
	case len(r.Spec.GPUModels) > 0 && modelRank(r.Spec, n) < 0:
		return refuse(ReasonModel, "%s, wanted %s", describeModel(n), wanted)
	case r.Spec.GPUMemoryBytes > 0 && n.GPUs.MemoryBytes == 0:
		return refuse(ReasonMemory, "%s of unknown memory, wanted %s per %s", describeModel(n), gibibytes(r.Spec.GPUMemoryBytes), r.unit())
	case n.GPUs.MemoryBytes < r.Spec.GPUMemoryBytes:
		return refuse(ReasonMemory, "%s with %s per %s, wanted %s", describeModel(n), gibibytes(n.GPUs.MemoryBytes), r.unit(), gibibytes(r.Spec.GPUMemoryBytes))
	case n.GPUs.Shared && r.Spec.Isolation == benchspec.IsolationNode:
		return refuse(ReasonShared, "%s, wanted isolation", sharedGPUs(r))
	}
	return nil
}

func checkCapacity(r Request, n Node) *Refusal {
	if c := r.Spec.Capacity; c != benchspec.CapacityAny && c != "" && string(c) != n.Pool.CapacityType {
		return refuse(ReasonCapacity, "%s capacity, wanted %s", n.Pool.CapacityType, c)
	}
	if n.Notice != "" {
		return refuse(ReasonNotice, "an interruption notice (%s)", n.Notice)
	}
	return nil
}

func checkRisk(r Request, n Node) *Refusal {
	work := r.work()
	if limit := r.Spec.MaxInterruptionRisk; limit != nil {
		if p := n.hazardOver(work).Interruption(work); p > *limit {
			return refuse(ReasonRisk, "interruption risk %s over %s, limit %s", above(p, *limit), short(work), fraction(*limit))
		}
	}
	hours := Reckon(r, n).Hours
	if hours > longestRun {
		return refuse(ReasonNeverDone, "interruptions so often that %s of work never finish", short(work))
	}
	if !r.Spec.Deadline.IsZero() {
		switch left := r.Spec.Deadline.Sub(r.Now); {
		case left <= 0:
			return refuse(ReasonDeadline, "no time left, deadline was %s", r.Spec.Deadline.UTC().Format(time.RFC3339))
		case hours > left.Hours():
			return refuse(ReasonDeadline, "an expected %s to finish, deadline in %s", shortHours(hours), short(left))
		}
	}
	return nil
}

// CheckNeighbours is the part of Check that asks who is on the node: it keeps an
// isolated pod and others apart, from both sides.
func CheckNeighbours(r Request, n Node) *Refusal {
	switch {
	case r.GPUs == 0:
		return nil
	case n.IsolatedPods > 0:
		return passing(ReasonIsolated, "a pod that is isolated on its GPUs")
	case r.Spec.Isolation == benchspec.IsolationNode && n.GPUPods > 0:
		return passing(ReasonNeighbours, "other pods on their GPUs, wanted isolation")
	}
	return nil
}

// CheckRoom says whether a node has as many free GPUs as the pod asks for. The
// scheduler's own accounting decides that; this explains it.
func CheckRoom(r Request, n Node) *Refusal {
	switch {
	case n.FreeGPUs >= r.GPUs:
		return nil
	case r.Resource.Whole() || r.Resource.Claimed:
		return passing(ReasonRoom, "%d free GPUs of %d, wanted %d", n.FreeGPUs, n.TotalGPUs, r.GPUs)
	}
	return passing(ReasonRoom, "%d of %d %s free, wanted %d", n.FreeGPUs, n.TotalGPUs, r.Resource.Name(), r.GPUs)
}

// unit is what one of the pod's GPUs is called.
func (r Request) unit() string {
	if r.Resource.Profile != "" {
		return "slice"
	}
	return "GPU"
}

func sharedGPUs(r Request) string {
	if r.Resource.Whole() {
		return "time-sliced GPUs"
	}
	return r.Resource.Name() + " that pods share"
}

func refuse(reason Reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, Detail: fmt.Sprintf(format, args...)}
}

func passing(reason Reason, format string, args ...any) *Refusal {
	r := refuse(reason, format, args...)
	r.Temporary = true
	return r
}

// ModelRank is how preferred a node's model is, from 0; -1 when the pod lists others.
func (r Request) ModelRank(n Node) int { return modelRank(r.Spec, n) }

// modelRank is how preferred the node's model is, 0 for pods that list none, -1 when
// it is not in the list. A slice that the pod asks for as such is of its card's model
// and of its own.
func modelRank(s benchspec.Spec, n Node) int {
	if len(s.GPUModels) == 0 {
		return 0
	}
	i := slices.IndexFunc(s.GPUModels, func(m string) bool {
		return m == n.GPUs.Model || m == n.GPUs.Product || m == n.GPUs.Card
	})
	if i < 0 {
		return -1
	}
	return s.ModelRank(i)
}

func describeModel(n Node) string {
	if n.GPUs.Model == "" {
		return "GPUs without a label " + gpu.LabelProduct
	}
	return n.GPUs.Model
}

func wantedGPUs(r Request) string {
	switch {
	case len(r.Spec.GPUModels) > 0:
		return strings.Join(r.Spec.GPUModels, " or ")
	case r.Spec.GPUMemoryBytes > 0:
		return strconv.Itoa(r.GPUs) + " with " + gibibytes(r.Spec.GPUMemoryBytes) + " each"
	}
	return strconv.Itoa(r.GPUs)
}

// gibibytes is a size of memory in GiB, with as many decimals as it needs.
func gibibytes(bytes int64) string {
	return strconv.FormatFloat(math.Round(float64(bytes)/(1<<30)*100)/100, 'f', -1, 64) + " GiB"
}

// above writes a probability above a limit so that it reads as more than it: with
// two decimals, or more where these would hide the difference.
func above(p, limit float64) string {
	for decimals := 2; decimals < 9; decimals++ {
		s := strconv.FormatFloat(p, 'f', decimals, 64)
		if rounded, err := strconv.ParseFloat(s, 64); err == nil && rounded > limit {
			return s
		}
	}
	return strconv.FormatFloat(p, 'g', -1, 64)
}

// fraction writes a probability with at least two decimals: "0.10".
func fraction(p float64) string {
	if s := strconv.FormatFloat(p, 'f', -1, 64); len(s) > 4 {
		return s
	}
	return strconv.FormatFloat(p, 'f', 2, 64)
}

// short writes a duration without zero parts: "45m", "1h30m".
func short(d time.Duration) string {
	if d >= time.Minute {
		d = d.Round(time.Minute)
	}
	s := d.Round(time.Second).String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// shortHours is short for hours that no duration may hold.
func shortHours(h float64) string {
	if math.Abs(h) > longestRun {
		return "more than a century"
	}
	return short(time.Duration(h * float64(time.Hour)))
}
