// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is what a run of the demo measured. Every value comes from the cluster
// or from the catalog; none is assumed.
type Report struct {
	Pods    []PodReport   `json:"pods"`
	Notice  NoticeReport  `json:"notice"`
	Results ResultsReport `json:"results"`
	// CatalogURL is the page that lists the runs.
	CatalogURL string `json:"catalogURL"`
}

// PodReport is one benchmark, from its first pod to the one that finished.
type PodReport struct {
	// Name is the pod that finished the run; Run is the run's key in the catalog.
	Name string `json:"name"`
	Run  string `json:"run"`
	// GPUModel, GPUCount and Node are those of the pod that finished.
	GPUModel string `json:"gpuModel"`
	GPUCount int    `json:"gpuCount"`
	Node     string `json:"node"`
	// Why is the scheduler's own reason for the last placement.
	Why           string   `json:"why"`
	Nodes         []string `json:"nodes"`
	Interruptions int      `json:"interruptions"`
	// WorkLostSeconds is measured by the node agent: from the newest progress in
	// the last whole checkpoint to the moment the workload stopped.
	WorkLostSeconds float64 `json:"workLostSeconds"`
	// CostUSD is Σ over the run's segments of hours × price; OnDemandCostUSD is
	// the same hours at the on-demand price of the same GPUs.
	CostUSD         float64 `json:"costUSD"`
	OnDemandCostUSD float64 `json:"onDemandCostUSD"`
	DurationSeconds float64 `json:"durationSeconds"`
	Finished        bool    `json:"finished"`
}

// NoticeReport is the time line of the interruption, wall clock.
type NoticeReport struct {
	Node string `json:"node"`
	// SentAt is just before the metadata service was told to announce it.
	SentAt         time.Time `json:"sentAt"`
	TaintedAt      time.Time `json:"taintedAt"`
	CheckpointedAt time.Time `json:"checkpointedAt"`
	EvictedAt      time.Time `json:"evictedAt"`
	RunningAgainAt time.Time `json:"runningAgainAt"`
	// ReclaimedAt is when the machine was taken away.
	ReclaimedAt time.Time `json:"reclaimedAt"`
}

// ResultsReport compares the sweep points asked for with those in the catalog.
type ResultsReport struct {
	Expected  int `json:"expected"`
	InCatalog int `json:"inCatalog"`
	Lost      int `json:"lost"`
	// Requests are the measured requests in those results; each must be there once.
	RequestsExpected  int `json:"requestsExpected"`
	RequestsInCatalog int `json:"requestsInCatalog"`
	// ReferenceImported counts results imported from the reference data, if present.
	ReferenceImported int `json:"referenceImported"`
}

// Err says what the run failed to show, or nil if nothing was lost and
// everything finished.
func (r *Report) Err() error {
	var errs []error
	for _, p := range r.Pods {
		if !p.Finished {
			errs = append(errs, fmt.Errorf("%s did not finish", p.Run))
		}
	}
	if len(r.Pods) == 0 {
		errs = append(errs, errors.New("no benchmark was run"))
	}
	if r.Results.Lost != 0 || r.Results.InCatalog != r.Results.Expected {
		errs = append(errs, fmt.Errorf("%d of %d results are in the catalog", r.Results.InCatalog, r.Results.Expected))
	}
	if r.Results.RequestsInCatalog != r.Results.RequestsExpected {
		errs = append(errs, fmt.Errorf("%d measured requests are in the catalog, %d were asked for", r.Results.RequestsInCatalog, r.Results.RequestsExpected))
	}
	n := r.Notice
	for _, at := range []struct {
		name string
		t    time.Time
	}{{"tainted", n.TaintedAt}, {"checkpointed", n.CheckpointedAt}, {"evicted", n.EvictedAt}, {"running again", n.RunningAgainAt}} {
		if at.t.IsZero() {
			errs = append(errs, fmt.Errorf("the interruption was never seen to be %s", at.name))
		} else if at.t.Before(n.SentAt) {
			errs = append(errs, fmt.Errorf("%s at %s, before the notice at %s", at.name, at.t, n.SentAt))
		}
	}
	return errors.Join(errs...)
}

// WriteJSON writes the report to path, creating its directory.
func (r *Report) WriteJSON(path string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

// Print writes the last screen: a table for people.
func (r *Report) Print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "\nPOD\tGPUS\tNODES\tINTERRUPTED\tWORK LOST\tCOST\tON DEMAND\tSAVED")
	for _, p := range r.Pods {
		fmt.Fprintf(tw, "%s\t%d× %s\t%s\t%d\t%.1f s\t$%.4f\t$%.4f\t%s\n", p.Name, p.GPUCount, p.GPUModel,
			strings.Join(p.Nodes, " → "), p.Interruptions, p.WorkLostSeconds, p.CostUSD, p.OnDemandCostUSD, saved(p.CostUSD, p.OnDemandCostUSD))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w, "\nWhy there:")
	for _, p := range r.Pods {
		fmt.Fprintf(w, "  %s: %s\n", p.Name, p.Why)
	}
	n := r.Notice
	fmt.Fprintf(w, "\nSpot notice on %s: ", n.Node)
	fmt.Fprintf(w, "tainted after %s, checkpoint whole after %s, evicted after %s, running again after %s", after(n.SentAt, n.TaintedAt),
		after(n.SentAt, n.CheckpointedAt), after(n.SentAt, n.EvictedAt), after(n.SentAt, n.RunningAgainAt))
	if !n.ReclaimedAt.IsZero() {
		fmt.Fprintf(w, ", machine gone after %s", after(n.SentAt, n.ReclaimedAt))
	}
	fmt.Fprintf(w, ".\nResults: %d of %d sweep points in the catalog, %d of %d requests measured exactly once, %d lost",
		r.Results.InCatalog, r.Results.Expected, r.Results.RequestsInCatalog, r.Results.RequestsExpected, r.Results.Lost)
	if r.Results.ReferenceImported > 0 {
		fmt.Fprintf(w, "; %d reference results imported", r.Results.ReferenceImported)
	}
	_, err := fmt.Fprintf(w, ".\nCatalog: %s\n", r.CatalogURL)
	return err
}

func saved(cost, onDemand float64) string {
	if onDemand <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f %%", 100*(1-cost/onDemand))
}

func after(from, to time.Time) string {
	if to.IsZero() {
		return "never"
	}
	return to.Sub(from).Round(10 * time.Millisecond).String()
}
