// SPDX-License-Identifier: Apache-2.0

package web

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/compare"
	"github.com/spotbench/spotbench/pkg/catalog/filter"
)

// PathOfModel is the path of a model's page.
func PathOfModel(name string) string { return "/models/" + url.PathEscape(name) }

type modelsView struct {
	page
	Models []catalog.Model
}

func (h *Handler) serveModels(w http.ResponseWriter, r *http.Request) {
	models, err := h.reader.ListModels(r.Context())
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.render(w, r, "models", http.StatusOK, modelsView{page{"Models", "models"}, models})
}

// modelView is what was measured of a model, by GPU.
type modelView struct {
	page
	Model catalog.Model
	// GPUs are its results, those of a GPU model and count together.
	GPUs        []gpuResults
	Chart       scatter
	Frontier    compare.Frontier
	Regressions []regression
	More        bool
	// Left are choices that are not shown.
	Left int
}

// regression is a metric that became worse from one version to the next, with the
// load at which it did so most.
type regression struct {
	Title, GPUs, From, To string
	Worst                 compare.Change
	Loads                 int
}

// byMetric joins the loads; the changes come with the largest first.
func byMetric(changes []compare.Change) []regression {
	var out []regression
	for _, c := range changes {
		r := regression{Title: c.Title, GPUs: gpusOf(catalog.Run{GPUModel: c.Of["gpuModel"]}), From: c.From, To: c.To, Worst: c, Loads: 1}
		if n := c.Of["gpuCount"]; n != "" {
			r.GPUs = n + "× " + r.GPUs
		}
		n := slices.IndexFunc(out, func(o regression) bool {
			return o.Title == r.Title && o.GPUs == r.GPUs && o.From == r.From && o.To == r.To
		})
		if n < 0 {
			out = append(out, r)
			continue
		}
		out[n].Loads++
	}
	return out
}

type gpuResults struct {
	Name    string
	Choices []compare.Choice
}

// APIPath is where the same is as JSON.
func (v modelView) APIPath() string {
	return "/v1/pareto?" + url.Values{"model": {v.Model.Name}}.Encode()
}

// ByGPU is the address of the comparison of the model's GPUs.
func (v modelView) ByGPU() string {
	return "/compare?" + url.Values{"model": {v.Model.Name}, "by": {"gpuModel", "gpuCount"}}.Encode()
}

func (h *Handler) serveModel(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	models, err := h.reader.ListModels(r.Context())
	if err != nil {
		h.fail(w, r, err)
		return
	}
	n := slices.IndexFunc(models, func(m catalog.Model) bool { return m.Name == name })
	if n < 0 {
		h.fail(w, r, catalog.ErrNotFound)
		return
	}
	v := modelView{page: page{name, "models"}, Model: models[n]}
	runs, more, err := h.reader.Measured(r.Context(), nil, catalog.RunQuery{Model: name})
	if err != nil {
		h.fail(w, r, err)
		return
	}
	v.More = more
	v.Frontier, err = compare.FindFrontier(runs, compare.FrontierOptions{By: []string{"gpuCount", "gpuModel", "engine", "engineVersion", "benchmark"}})
	if err != nil {
		h.fail(w, r, err)
		return
	}
	v.Frontier.Choices, v.Left = shorten(v.Frontier.Choices)
	v.Chart = newScatter(v.Frontier)
	for _, d := range runs {
		group := cmp.Or(gpusOf(d.Run), "GPUs not told")
		if slices.ContainsFunc(v.GPUs, func(g gpuResults) bool { return g.Name == group }) {
			continue
		}
		v.GPUs = append(v.GPUs, gpuResults{Name: group, Choices: slices.DeleteFunc(slices.Clone(v.Frontier.Choices), func(c compare.Choice) bool {
			return !slices.ContainsFunc(runs, func(d catalog.Detail) bool {
				return d.Key == c.Runs[0] && cmp.Or(gpusOf(d.Run), "GPUs not told") == group
			})
		})})
	}
	v.GPUs = slices.DeleteFunc(v.GPUs, func(g gpuResults) bool { return len(g.Choices) == 0 })
	slices.SortFunc(v.GPUs, func(a, b gpuResults) int { return cmp.Compare(a.Name, b.Name) })
	for _, between := range []string{"engineVersion", "driverVersion"} {
		found, err := compare.Regress(runs, between, 5)
		if err != nil {
			h.fail(w, r, err)
			return
		}
		v.Regressions = append(v.Regressions, byMetric(found.Items)...)
	}
	h.render(w, r, "model", http.StatusOK, v)
}

func gpusOf(r catalog.Run) string {
	if r.GPUModel == "" {
		return ""
	}
	if r.GPUCount == 0 {
		return r.GPUModel
	}
	return count(r.GPUCount) + "× " + r.GPUModel
}

// compareView is configurations beside each other.
type compareView struct {
	page
	Filter     filter.Comparison
	Models     []catalog.Model
	Dimensions []string
	// Asked is false for the empty form.
	Asked bool
	compare.Report
	Loads []loadLines
	// Links lead to each load, where all of them are too much for a page.
	Links   []loadLink
	Problem string
}

// loadLink is the address of the comparison at one load.
type loadLink struct {
	Name, Path string
	Current    bool
}

// Bounds that keep pages short: cells of a comparison, and rows of choices.
const (
	mostCells   = 320
	mostChoices = 100
)

// narrow leaves one load, the one asked for or the first, and links to each.
func (v *compareView) narrow(query url.Values) {
	asked, err := strconv.Atoi(query.Get("load"))
	if err != nil || asked < 0 || asked >= len(v.Loads) {
		asked = 0
	}
	for n, l := range v.Loads {
		query.Set("load", strconv.Itoa(n))
		v.Links = append(v.Links, loadLink{l.String(), "/compare?" + query.Encode(), n == asked})
	}
	v.Loads = v.Loads[asked : asked+1]
}

// shorten keeps the choices on the frontier and the first of the others, and says
// how many it left out.
func shorten(choices []compare.Choice) (kept []compare.Choice, left int) {
	for _, c := range choices {
		if c.Frontier || len(kept) < mostChoices {
			kept = append(kept, c)
		}
	}
	kept = kept[:min(len(kept), 2*mostChoices)]
	return kept, len(choices) - len(kept)
}

// loadLines are the metrics at one load.
type loadLines struct {
	compare.Load
	Lines []compare.Line
}

// Letter names a configuration (there are compare.Most) where there is no room for its
// name.
func (compareView) Letter(n int) string { return "ABCDEFGH"[n : n+1] }

// Selected says whether a dimension was asked for.
func (v compareView) Selected(dimension string) bool { return slices.Contains(v.Filter.By, dimension) }

// APIPath is where the same is as JSON.
func (v compareView) APIPath() string { return "/v1/compare?" + filter.Encode(&v.Filter).Encode() }

func (h *Handler) serveCompare(w http.ResponseWriter, r *http.Request) {
	v := compareView{page: page{"Compare", "compare"}, Dimensions: slices.DeleteFunc(compare.DimensionNames(), func(s string) bool { return s == "run" })}
	var err error
	if v.Models, err = h.reader.ListModels(r.Context()); err != nil {
		h.fail(w, r, err)
		return
	}
	if err := filter.Decode(r.URL.Query(), &v.Filter); err != nil {
		h.fail(w, r, err)
		return
	}
	status := http.StatusOK
	if v.Asked = len(filter.Encode(&v.Filter)) > 0; v.Asked {
		runs, more, err := h.reader.Measured(r.Context(), v.Filter.Run, v.Filter.Query())
		if err != nil {
			h.fail(w, r, err)
			return
		}
		v.Report, err = compare.Compare(runs, compare.Options{By: v.Filter.By, Base: v.Filter.Base, Invalid: v.Filter.All || len(v.Filter.Run) > 0})
		if err != nil {
			status, v.Problem = http.StatusBadRequest, strings.TrimPrefix(err.Error(), catalog.ErrInvalid.Error()+": ")
		}
		if more {
			v.Notes = append(v.Notes, "Only the newest "+count(catalog.MaxMeasured)+" runs are compared; filter more for the others.")
		}
		for _, line := range v.Lines {
			if n := len(v.Loads); n == 0 || v.Loads[n-1].String() != line.Load.String() || v.Loads[n-1].Benchmark != line.Load.Benchmark {
				v.Loads = append(v.Loads, loadLines{Load: line.Load})
			}
			last := &v.Loads[len(v.Loads)-1]
			last.Lines = append(last.Lines, line)
		}
		if len(v.Lines)*len(v.Configurations) > mostCells {
			v.narrow(r.URL.Query())
		}
	}
	h.render(w, r, "compare", status, v)
}

// paretoView is the choices between throughput, latency and cost.
type paretoView struct {
	page
	Filter    filter.Pareto
	Models    []catalog.Model
	Latencies []catalog.Metric
	compare.Frontier
	Chart scatter
	More  bool
	// OnFrontier of all the choices no other beats; Left are not shown.
	OnFrontier, Of, Left int
}

// APIPath is where the same is as JSON.
func (v paretoView) APIPath() string { return "/v1/pareto?" + filter.Encode(&v.Filter).Encode() }

func countFrontier(choices []compare.Choice) int {
	n := 0
	for _, c := range choices {
		if c.Frontier {
			n++
		}
	}
	return n
}

func (h *Handler) servePareto(w http.ResponseWriter, r *http.Request) {
	v := paretoView{page: page{"Pareto", "pareto"}}
	for _, m := range catalog.Metrics() {
		if m.Unit == "ms" {
			v.Latencies = append(v.Latencies, m)
		}
	}
	if err := filter.Decode(r.URL.Query(), &v.Filter); err != nil {
		h.fail(w, r, err)
		return
	}
	v.Filter.Latency = cmp.Or(v.Filter.Latency, compare.DefaultLatency)
	var err error
	if v.Models, err = h.reader.ListModels(r.Context()); err != nil {
		h.fail(w, r, err)
		return
	}
	if v.Filter.Model == "" && len(v.Filter.Run) == 0 && len(v.Models) > 0 {
		// The model with the most to choose from; several in one chart are rarely a choice.
		v.Filter.Model = slices.MaxFunc(v.Models, func(a, b catalog.Model) int { return cmp.Compare(a.Results, b.Results) }).Name
	}
	var runs []catalog.Detail
	if runs, v.More, err = h.reader.Measured(r.Context(), v.Filter.Run, v.Filter.Query()); err != nil {
		h.fail(w, r, err)
		return
	}
	options := compare.FrontierOptions{By: v.Filter.By, Latency: v.Filter.Latency, Invalid: v.Filter.All}
	if len(options.By) == 0 && v.Filter.Model != "" {
		options.By = []string{"gpuCount", "gpuModel", "engine", "engineVersion"}
	}
	for _, o := range v.Filter.Objectives {
		options.Objectives = append(options.Objectives, compare.Objective(o))
	}
	if v.Frontier, err = compare.FindFrontier(runs, options); err != nil {
		h.fail(w, r, err)
		return
	}
	v.OnFrontier, v.Of = countFrontier(v.Choices), len(v.Choices)
	v.Choices, v.Left = shorten(v.Choices)
	v.Chart = newScatter(v.Frontier)
	h.render(w, r, "pareto", http.StatusOK, v)
}

// fleetView is the machines, what runs on them, and how likely they are taken back.
type fleetView struct {
	page
	Live     []runRow
	Machines []machineRow
	Risks    []catalog.PoolRisk
	More     bool
}

type machineRow struct {
	catalog.Instance
	State        string
	LivedSeconds float64
}

// machinesShown bounds the list of machines.
const machinesShown = 100

func (h *Handler) serveFleet(w http.ResponseWriter, r *http.Request) {
	v := fleetView{page: page{"Fleet", "fleet"}}
	for _, status := range []catalog.Status{catalog.Running, catalog.Interrupted} {
		list, err := h.reader.ListRuns(r.Context(), catalog.RunQuery{Status: status, Limit: runsPerPage})
		if err != nil {
			h.fail(w, r, err)
			return
		}
		for _, run := range list.Items {
			v.Live = append(v.Live, runRow{Summary: run, Name: nameOf(run.Key), Cost: money{run.CostUSD, run.OnDemandCostUSD, run.CostKnown}})
		}
	}
	machines, err := h.reader.ListInstances(r.Context(), catalog.InstanceQuery{Limit: machinesShown})
	if err != nil {
		h.fail(w, r, err)
		return
	}
	now := h.now()
	v.More = machines.NextPageToken != ""
	for _, m := range machines.Items {
		row := machineRow{Instance: m, State: "seen", LivedSeconds: m.Lived().Seconds()}
		_, interrupted := m.Interrupted()
		switch {
		case m.LaunchRefused():
			row.State = "refused"
		case interrupted:
			row.State = "taken back"
		case !m.RebalanceAt.IsZero():
			row.State = "at risk"
		}
		v.Machines = append(v.Machines, row)
	}
	lives, err := h.reader.Lives(r.Context(), now.Add(-catalog.RiskWindow))
	if err != nil {
		h.fail(w, r, err)
		return
	}
	v.Risks = catalog.ReckonRisk(lives, h.hazards, catalog.RiskQuery{}, now)
	h.render(w, r, "fleet", http.StatusOK, v)
}

// savingsView is what spot capacity saved.
type savingsView struct {
	page
	catalog.SavingsReport
	Ways  []catalog.SavingsBy
	Lines []savingsRow
	Cost  money
}

type savingsRow struct {
	catalog.Savings
	Cost money
}

// APIPath is where the same is as JSON.
func (v savingsView) APIPath() string { return "/v1/savings?by=" + string(v.By) }

func (h *Handler) serveSavings(w http.ResponseWriter, r *http.Request) {
	by := catalog.SavingsBy(cmp.Or(r.URL.Query().Get("by"), string(catalog.ByModel)))
	report, err := h.reader.Savings(r.Context(), catalog.SavingsQuery{By: by})
	if err != nil {
		h.fail(w, r, err)
		return
	}
	report = report.InCents()
	v := savingsView{page: page{"Savings", "savings"}, SavingsReport: report, Cost: money{report.Total.ComparedUSD, report.Total.OnDemandUSD, true},
		Ways: []catalog.SavingsBy{catalog.ByModel, catalog.ByPool, catalog.ByNamespace, catalog.ByMonth, catalog.ByRun}}
	for _, line := range report.Lines {
		v.Lines = append(v.Lines, savingsRow{line, money{line.ComparedUSD, line.OnDemandUSD, line.OnDemandUSD > 0}})
	}
	h.render(w, r, "savings", http.StatusOK, v)
}
