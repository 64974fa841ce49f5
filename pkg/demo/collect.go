// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/catalog"
)

// recordsTimeout is how long the last records may take from the nodes' disks to
// the catalog.
const recordsTimeout = time.Minute

// collect asks the catalog what it has of each Job and compares it with what the
// Job asked for.
func (s *Stage) collect(ctx context.Context, jobs []batchv1.Job, report *Report) error {
	for _, job := range jobs {
		wanted, err := sweepOf(&job)
		if err != nil {
			return err
		}
		report.Results.Expected += wanted.points
		report.Results.RequestsExpected += wanted.points * wanted.requests

		pod, placement, err := s.placementOf(ctx, job.Name)
		if err != nil {
			return err
		}
		key := benchspec.RunKey(pod.Namespace, pod.Labels, pod.Annotations, pod.Name)
		run, err := s.settledRun(ctx, key, wanted.points)
		if err != nil {
			return err
		}
		entry := PodReport{
			Name: pod.Name, Run: key, GPUModel: placement.GPUModel, GPUCount: placement.GPUCount, Node: placement.Node, Why: placement.Reason,
			Nodes: run.Nodes, Interruptions: run.InterruptionCount, WorkLostSeconds: run.WorkLostSeconds,
			CostUSD: run.CostUSD, OnDemandCostUSD: run.OnDemandCostUSD, DurationSeconds: run.DurationSeconds,
			Finished: run.Status == catalog.Succeeded,
		}
		report.Pods = append(report.Pods, entry)
		report.Results.InCatalog += len(run.Results)
		for _, result := range run.Results {
			report.Results.RequestsInCatalog += int(result.Completed)
		}
		for _, i := range run.Interruptions {
			if i.Node == report.Notice.Node && i.CheckpointedAt.After(report.Notice.CheckpointedAt) {
				report.Notice.CheckpointedAt = i.CheckpointedAt
			}
		}
	}
	report.Results.Lost = max(0, report.Results.Expected-report.Results.InCatalog)
	imported, err := s.importReference(ctx)
	report.Results.ReferenceImported = imported
	return err
}

// settledRun waits until the catalog has the run's end and the results expected,
// or returns what it has when the time is up: what is missing is then reported.
func (s *Stage) settledRun(ctx context.Context, key string, points int) (catalog.Detail, error) {
	var run catalog.Detail
	err := wait.PollUntilContextTimeout(ctx, 250*time.Millisecond, recordsTimeout, true, func(ctx context.Context) (bool, error) {
		got, err := s.Catalog.GetRun(ctx, key)
		if err != nil {
			return false, nil //nolint:nilerr // not there yet, or the catalog is busy
		}
		run = got
		return run.Status == catalog.Succeeded && len(run.Results) >= points, nil
	})
	if run.Key == "" {
		return run, fmt.Errorf("the catalog has no run %s: %w", key, err)
	}
	return run, nil
}

// gpuInFileName matches the hardware at the end of a reference file's name.
var gpuInFileName = regexp.MustCompile(`_([a-z]+[0-9]+)(-[a-z]+)?\.json$`)

// referenceRun describes a reference file: the file names its model, its name the GPU.
func referenceRun(name string, data []byte) (catalog.Run, error) {
	var file struct {
		ModelID string `json:"model_id"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return catalog.Run{}, fmt.Errorf("%s: %w", name, err)
	}
	run := catalog.Run{
		Key:       "reference/" + strings.ToLower(strings.TrimSuffix(name, ".json")),
		Namespace: "reference", Model: file.ModelID, Benchmark: strings.TrimSuffix(name, ".json"), Status: catalog.Succeeded,
	}
	if m := gpuInFileName.FindStringSubmatch(name); m != nil {
		run.GPUModel = strings.ToUpper(m[1])
	}
	return run, nil
}
