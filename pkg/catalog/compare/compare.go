// SPDX-License-Identifier: Apache-2.0

// Package compare sets measured configurations beside each other the way
// benchstat does: at the same load, by the median over their runs with its
// interval, and with a test of whether chance explains the difference. It is
// pure.
package compare

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// The number of configurations that are set beside each other.
const (
	Fewest = 2
	Most   = 8
)

// Dimension is a property of a run that configurations are told apart by.
type Dimension struct {
	Name string
	of   func(catalog.Run) string
}

// Dimensions are all of them.
func Dimensions() []Dimension {
	return []Dimension{
		{"model", func(r catalog.Run) string { return r.Model }},
		{"benchmark", func(r catalog.Run) string { return r.Benchmark }},
		{"gpuModel", func(r catalog.Run) string { return r.GPUModel }},
		{"gpuCount", func(r catalog.Run) string {
			if r.GPUCount == 0 {
				return ""
			}
			return strconv.Itoa(r.GPUCount)
		}},
		{"engine", func(r catalog.Run) string { return r.Engine }},
		{"engineVersion", func(r catalog.Run) string { return r.EngineVersion }},
		{"driverVersion", func(r catalog.Run) string { return r.DriverVersion }},
		{"instanceType", func(r catalog.Run) string { return r.InstanceType }},
		{"capacityType", func(r catalog.Run) string { return r.CapacityType }},
		{"region", func(r catalog.Run) string { return r.Region }},
		{"imageDigest", func(r catalog.Run) string { return r.ImageDigest }},
		{"run", func(r catalog.Run) string { return r.Key }},
	}
}

// shown is a value as a part of a configuration's name.
func (d Dimension) shown(value string) string {
	switch {
	case value == "":
		return "(" + d.Name + " not told)"
	case d.Name == "gpuCount":
		return value + "×"
	}
	return value
}

// DimensionNames are the names of all of them.
func DimensionNames() []string {
	var names []string
	for _, d := range Dimensions() {
		names = append(names, d.Name)
	}
	return names
}

// Configuration is what is compared: runs that have the same in every dimension.
type Configuration struct {
	Name     string            `json:"name" doc:"Its values, joined"`
	Values   map[string]string `json:"values" doc:"Its value in each dimension; empty where the runs do not tell"`
	Runs     []string          `json:"runs" nullable:"false" doc:"Keys of its runs"`
	Verdicts map[string]int    `json:"verdicts" doc:"How many of the runs have which verdict"`
}

// Load is at what load a point was measured. Only points of the same benchmark
// and load are compared.
type Load struct {
	Benchmark   string   `json:"benchmark,omitempty"`
	Concurrency *int64   `json:"concurrency,omitempty"`
	RequestRate *float64 `json:"requestRate,omitempty" doc:"Requests offered per second"`
	Variant     string   `json:"variant,omitempty" doc:"Settings that tell the points apart which one run has at this load"`
}

// volatile are settings that differ from one repetition to the next.
var volatile = []string{"start_time", "end_time", "random_seed", "seed"}

// pointsOf are a run's points with their loads. Several at one load are
// repetitions only if they were measured with the same settings; else the settings
// that differ are their variant.
func pointsOf(d *catalog.Detail) []point {
	points := make([]point, len(d.Results))
	same := map[string][]int{}
	for n := range d.Results {
		r := &d.Results[n]
		points[n] = point{run: d, result: r, load: Load{Benchmark: d.Benchmark, Concurrency: r.Concurrency, RequestRate: r.RequestRate}}
		points[n].at = points[n].load.key()
		same[points[n].at] = append(same[points[n].at], n)
	}
	for _, at := range same {
		if len(at) == 1 {
			continue
		}
		values, of := map[string]map[string]bool{}, make([]map[string]string, len(at))
		for i, n := range at {
			of[i] = settings(d.Results[n])
			for name := range of[i] {
				values[name] = map[string]bool{}
			}
		}
		for name := range values {
			for _, had := range of {
				values[name][had[name]] = true
			}
		}
		names := slices.Sorted(maps.Keys(values))
		for i, n := range at {
			var variant []string
			for _, name := range names {
				if len(values[name]) > 1 && of[i][name] != "" && !slices.Contains(volatile, name) {
					variant = append(variant, name+" "+of[i][name])
				}
			}
			points[n].load.Variant = strings.Join(variant, ", ")
			points[n].at = points[n].load.key()
		}
	}
	return points
}

// settings are how a point was measured, its model and server among them.
func settings(r catalog.Result) map[string]string {
	out := map[string]string{"model": r.Model, "backend": r.Backend}
	maps.Copy(out, r.Settings)
	return out
}

// String is the load without the benchmark, for people.
func (l Load) String() string {
	if l.Variant != "" {
		return l.offered() + ", " + l.Variant
	}
	return l.offered()
}

func (l Load) offered() string {
	switch {
	case l.Concurrency != nil:
		return "concurrency " + strconv.FormatInt(*l.Concurrency, 10)
	case l.RequestRate != nil:
		return strconv.FormatFloat(*l.RequestRate, 'g', 4, 64) + " requests/s"
	}
	return "no limit"
}

func (l Load) order(other Load) int {
	number := func(l Load) float64 {
		switch {
		case l.Concurrency != nil:
			return float64(*l.Concurrency)
		case l.RequestRate != nil:
			return 1e12 + *l.RequestRate
		}
		return 1e18
	}
	return cmp.Or(cmp.Compare(l.Benchmark, other.Benchmark), cmp.Compare(number(l), number(other)), cmp.Compare(l.Variant, other.Variant))
}

func (l Load) key() string { return l.Benchmark + "\x00" + l.String() }

// Cell is one configuration's figure.
type Cell struct {
	Sample
	// ToBase is absent for the base itself.
	ToBase *Difference `json:"toBase,omitempty" doc:"Beside the base; absent for the base itself"`
}

// Line is one metric at one load, a cell for each configuration.
type Line struct {
	Load           Load   `json:"load"`
	Metric         string `json:"metric"`
	Title          string `json:"title" doc:"The metric, for people"`
	Unit           string `json:"unit"`
	HigherIsBetter bool   `json:"higherIsBetter"`
	Cells          []Cell `json:"cells" nullable:"false" doc:"In the order of the configurations"`
}

// Report is a comparison. The first configuration is the base.
type Report struct {
	By             []string        `json:"by" nullable:"false" doc:"Dimensions that the configurations are told apart by"`
	Configurations []Configuration `json:"configurations" nullable:"false" doc:"The first is the base"`
	Lines          []Line          `json:"lines" nullable:"false" doc:"By load and metric"`
	Confidence     float64         `json:"confidence" doc:"Of the intervals"`
	Alpha          float64         `json:"alpha" doc:"A difference with a smaller p is significant"`
	LeftOut        int             `json:"leftOut" doc:"Runs that match and are not compared, because they go on or are invalid"`
	Notes          []string        `json:"notes,omitempty" nullable:"false" doc:"What to know before believing it"`
}

// Options say how to compare.
type Options struct {
	// By are the dimensions; none is by run.
	By []string
	// Base is the name of the base, or of the run that is in it; "" is the first.
	Base string
	// Invalid has runs that are invalid compared too.
	Invalid bool
}

// Compare sets the runs' configurations beside each other. The runs' order is
// that of the configurations.
func Compare(runs []catalog.Detail, o Options) (Report, error) {
	by := o.By
	if len(by) == 0 {
		by = []string{"run"}
	}
	report := Report{By: by, Confidence: Confidence, Alpha: Alpha, Configurations: []Configuration{}, Lines: []Line{}}
	groups, leftOut, err := group(runs, by, o.Invalid)
	if err != nil {
		return Report{}, err
	}
	report.LeftOut = leftOut
	if len(groups) < Fewest || len(groups) > Most {
		return Report{}, miscounted(groups, by, leftOut)
	}
	if o.Base != "" {
		n := slices.IndexFunc(groups, func(g configured) bool { return g.Name == o.Base || slices.Contains(g.Runs, o.Base) })
		if n < 0 {
			return Report{}, fmt.Errorf("%w: base %q is none of the configurations %s", catalog.ErrInvalid, o.Base, names(groups))
		}
		base := groups[n]
		groups = append([]configured{base}, slices.Delete(groups, n, n+1)...)
	}
	for _, g := range groups {
		report.Configurations = append(report.Configurations, g.Configuration)
	}
	report.Lines = lines(groups)
	report.Notes = notes(groups, report.Lines)
	return report, nil
}

func miscounted(groups []configured, by []string, leftOut int) error {
	what := strings.Join(by, ", ")
	out := ""
	if leftOut > 0 {
		out = fmt.Sprintf(" (%d runs that go on or are invalid were left out)", leftOut)
	}
	switch len(groups) {
	case 0:
		return fmt.Errorf("%w: no run with results matches%s; see GET /v1/runs for what there is", catalog.ErrInvalid, out)
	case 1:
		return fmt.Errorf("%w: all runs are of one configuration by %s, %s%s; name a dimension in which they differ with by, or filter less", catalog.ErrInvalid, what, names(groups), out)
	}
	return fmt.Errorf("%w: the runs are of %d configurations by %s, %s; at most %d are compared at once: filter more, or name fewer dimensions with by", catalog.ErrInvalid, len(groups), what, names(groups[:Most]), Most)
}

func names(groups []configured) string {
	var out []string
	for _, g := range groups {
		out = append(out, strconv.Quote(g.Name))
	}
	return strings.Join(out, ", ")
}

// point is a result with its run and load; at is the load's key.
type point struct {
	run    *catalog.Detail
	result *catalog.Result
	load   Load
	at     string
}

// configured is a configuration with its points.
type configured struct {
	Configuration
	// told is the name without what the runs do not tell.
	told   string
	points []point
	// at are the points by the key of their load.
	at map[string][]point
}

// usable says whether a run's results may be compared.
func usable(d catalog.Detail, invalid bool) bool {
	return len(d.Results) > 0 && d.Validity.Verdict != catalog.Pending && (invalid || d.Validity.Verdict != catalog.Invalid)
}

func group(runs []catalog.Detail, by []string, invalid bool) (groups []configured, leftOut int, err error) {
	var dimensions []Dimension
	for _, name := range by {
		n := slices.IndexFunc(Dimensions(), func(d Dimension) bool { return d.Name == name })
		if n < 0 {
			return nil, 0, fmt.Errorf("%w: by %q is unknown; use %s", catalog.ErrInvalid, name, strings.Join(DimensionNames(), ", "))
		}
		dimensions = append(dimensions, Dimensions()[n])
	}
	index := map[string]int{}
	for n := range runs {
		d := &runs[n]
		if !usable(*d, invalid) {
			leftOut++
			continue
		}
		values, shown := map[string]string{}, make([]string, len(dimensions))
		for n, dimension := range dimensions {
			value := dimension.of(d.Run)
			values[dimension.Name], shown[n] = value, dimension.shown(value)
		}
		name := strings.Join(shown, " ")
		n, ok := index[name]
		if !ok {
			n = len(groups)
			index[name] = n
			told := strings.Join(slices.DeleteFunc(slices.Clone(shown), func(s string) bool { return strings.HasSuffix(s, " not told)") }), " ")
			groups = append(groups, configured{told: cmp.Or(told, name), at: map[string][]point{}, Configuration: Configuration{Name: name, Values: values, Verdicts: map[string]int{}}})
		}
		g := &groups[n]
		g.Runs = append(g.Runs, d.Key)
		g.Verdicts[string(d.Validity.Verdict)]++
		for _, p := range pointsOf(d) {
			g.points = append(g.points, p)
			g.at[p.at] = append(g.at[p.at], p)
		}
	}
	return groups, leftOut, nil
}

// lines are the metrics that at least one configuration has, at the loads at
// which at least two have something; all loads where there are none such.
func lines(groups []configured) []Line {
	var loads []Load
	shared := map[string]map[int]bool{}
	for n, g := range groups {
		for _, p := range g.points {
			if shared[p.at] == nil {
				shared[p.at] = map[int]bool{}
				loads = append(loads, p.load)
			}
			shared[p.at][n] = true
		}
	}
	slices.SortFunc(loads, Load.order)
	both := slices.DeleteFunc(slices.Clone(loads), func(l Load) bool { return len(shared[l.key()]) < Fewest })
	if len(both) > 0 {
		loads = both
	}
	out := []Line{}
	metrics := catalog.Metrics()
	for _, load := range loads {
		at := load.key()
		for _, m := range metrics {
			line := Line{Load: load, Metric: m.Name, Title: m.Title, Unit: m.Unit, HigherIsBetter: m.HigherIsBetter}
			var base []float64
			some := false
			for n, g := range groups {
				values := g.values(at, m)
				some = some || len(values) > 0
				cell := Cell{Sample: summarise(values)}
				if n == 0 {
					base = values
				} else {
					difference := differ(base, values, m.HigherIsBetter)
					cell.ToBase = &difference
				}
				line.Cells = append(line.Cells, cell)
			}
			if some {
				out = append(out, line)
			}
		}
	}
	return out
}

// values are a metric's at the load of a key.
func (g configured) values(at string, m catalog.Metric) []float64 {
	var out []float64
	for _, p := range g.at[at] {
		if v, ok := m.Of(*p.run, *p.result); ok {
			out = append(out, v)
		}
	}
	return out
}

// differingShare is by how much the workloads of two configurations may differ,
// in tokens per request, before they are no longer the same.
const differingShare = 0.1

// notes say what the figures do not.
func notes(groups []configured, lines []Line) []string {
	var out []string
	fewest := 0
	for _, line := range lines {
		for _, c := range line.Cells {
			if c.N > 0 && (fewest == 0 || c.N < fewest) {
				fewest = c.N
			}
		}
	}
	if fewest > 0 && fewest < 4 {
		out = append(out, fmt.Sprintf("Some figures are of %s only. Two configurations need 4 runs each before a difference can be significant, and 6 for an interval.", runs(fewest)))
	}
	loads := map[string]bool{}
	for _, line := range lines {
		at := line.Load.key()
		if loads[at] {
			continue
		}
		loads[at] = true
		for _, kind := range []string{"input", "output"} {
			least, most := 0.0, 0.0
			for _, g := range groups {
				if v := g.tokensPerRequest(at, kind); v > 0 {
					if least == 0 || v < least {
						least = v
					}
					most = max(most, v)
				}
			}
			if most > (1+differingShare)*least {
				out = append(out, fmt.Sprintf("At %s the workloads differ: %.0f to %.0f %s tokens a request.", line.Load, least, most, kind))
			}
		}
	}
	return out
}

func (g configured) tokensPerRequest(at, kind string) float64 {
	tokens, requests := int64(0), int64(0)
	for _, p := range g.at[at] {
		r := p.result
		if !r.States(kind+"Tokens") || !r.States("completed") {
			continue
		}
		if kind == "input" {
			tokens += r.InputTokens
		} else {
			tokens += r.OutputTokens
		}
		requests += r.Completed
	}
	if requests == 0 {
		return 0
	}
	return float64(tokens) / float64(requests)
}
