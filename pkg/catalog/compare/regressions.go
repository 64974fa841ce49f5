// SPDX-License-Identifier: Apache-2.0

package compare

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/version"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// Change is a metric that differs between a version and the one before it, of
// what is the same otherwise.
type Change struct {
	Of     map[string]string `json:"of" doc:"What is the same: model, benchmark, GPUs, engine, and the other version"`
	Load   Load              `json:"load"`
	Metric string            `json:"metric"`
	Title  string            `json:"title" doc:"The metric, for people"`
	Unit   string            `json:"unit"`
	From   string            `json:"from" doc:"Older version"`
	To     string            `json:"to" doc:"Newer version"`
	Before Sample            `json:"before"`
	After  Sample            `json:"after"`
	Difference
	Runs []string `json:"runs" nullable:"false" doc:"Runs of the newer version"`
}

// Regressions is what a newer version made significantly worse.
type Regressions struct {
	Between          string   `json:"between" doc:"The version that is followed"`
	ThresholdPercent float64  `json:"thresholdPercent" doc:"Smaller differences are left out"`
	Alpha            float64  `json:"alpha"`
	Items            []Change `json:"items" nullable:"false" doc:"Regressions, the largest first"`
	Compared         int      `json:"compared" doc:"Comparisons that could be made; of so many between equals, a share of alpha is called significant by chance"`
	Untested         int      `json:"untested" doc:"Comparisons with too few runs to tell"`
	LeftOut          int      `json:"leftOut" doc:"Runs that match and are not compared, because they go on, are invalid, or do not tell the version"`
	Notes            []string `json:"notes,omitempty" nullable:"false"`
}

// Regress finds what newer engine or driver versions made worse: each version
// against the one before, for the same model, benchmark, GPUs and load.
func Regress(runs []catalog.Detail, between string, thresholdPercent float64) (Regressions, error) {
	same := []string{"model", "benchmark", "gpuModel", "gpuCount", "engine"}
	switch between {
	case "engineVersion":
		same = append(same, "driverVersion")
	case "driverVersion":
		same = append(same, "engineVersion")
	default:
		return Regressions{}, fmt.Errorf("%w: between %q is unknown; use engineVersion or driverVersion", catalog.ErrInvalid, between)
	}
	if !(thresholdPercent >= 0) || math.IsInf(thresholdPercent, 0) {
		return Regressions{}, fmt.Errorf("%w: threshold %v is no percentage; give for example 5", catalog.ErrInvalid, thresholdPercent)
	}
	out := Regressions{Between: between, ThresholdPercent: thresholdPercent, Alpha: Alpha, Items: []Change{}}
	groups, leftOut, err := group(runs, append(slices.Clone(same), between), false)
	if err != nil {
		return Regressions{}, err
	}
	out.LeftOut = leftOut
	families := map[string][]configured{}
	var order []string
	for _, g := range groups {
		if g.Values[between] == "" {
			out.LeftOut += len(g.Runs)
			continue
		}
		var key []string
		for _, name := range same {
			key = append(key, g.Values[name])
		}
		family := strings.Join(key, "\x00")
		if families[family] == nil {
			order = append(order, family)
		}
		families[family] = append(families[family], g)
	}
	for _, family := range order {
		versions := families[family]
		slices.SortStableFunc(versions, func(a, b configured) int {
			return cmp.Or(compareVersions(a.Values[between], b.Values[between]), a.firstRun().Compare(b.firstRun()), cmp.Compare(a.Name, b.Name))
		})
		for n := 1; n < len(versions); n++ {
			out.add(versions[n-1], versions[n])
		}
	}
	slices.SortStableFunc(out.Items, func(a, b Change) int { return -cmp.Compare(math.Abs(*a.DeltaPercent), math.Abs(*b.DeltaPercent)) })
	return out, nil
}

func (out *Regressions) add(before, after configured) {
	for _, line := range lines([]configured{before, after}) {
		if line.Cells[0].N == 0 || line.Cells[1].N == 0 {
			continue
		}
		difference := *line.Cells[1].ToBase
		if difference.Effect == Untested {
			out.Untested++
			continue
		}
		out.Compared++
		if difference.Effect != Worse || difference.DeltaPercent == nil || math.Abs(*difference.DeltaPercent) < out.ThresholdPercent {
			continue
		}
		of := map[string]string{}
		for name, value := range after.Values {
			if name != out.Between {
				of[name] = value
			}
		}
		out.Items = append(out.Items, Change{Of: of, Load: line.Load, Metric: line.Metric, Title: line.Title, Unit: line.Unit,
			From: before.Values[out.Between], To: after.Values[out.Between], Before: line.Cells[0].Sample, After: line.Cells[1].Sample,
			Difference: difference, Runs: after.Runs})
	}
}

func (g configured) firstRun() time.Time {
	var first time.Time
	for _, p := range g.points {
		if at := p.run.StartedAt; first.IsZero() || !at.IsZero() && at.Before(first) {
			first = at
		}
	}
	return first
}

// compareVersions orders versions by their numbers. Those that have none, such as
// the name of a branch, come last. What has the same numbers, such as a release and
// its candidates, is equal: it is ordered by time instead.
func compareVersions(a, b string) int {
	x, errX := version.ParseGeneric(a)
	y, errY := version.ParseGeneric(b)
	switch {
	case errX != nil && errY != nil:
		return 0
	case errX != nil:
		return 1
	case errY != nil || x.LessThan(y):
		return -1
	case y.LessThan(x):
		return 1
	}
	return 0
}
