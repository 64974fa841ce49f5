// SPDX-License-Identifier: Apache-2.0

package benchspec_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/spotbench/spotbench/pkg/benchspec"
)

func TestRunKeyIsStableAcrossThePodsOfARun(t *testing.T) {
	job := func(uid string) map[string]string {
		return map[string]string{"batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": "qwen"}
	}
	step := func(node string) (map[string]string, map[string]string) {
		return map[string]string{"workflows.argoproj.io/workflow": "wf-x7k2"}, map[string]string{"workflows.argoproj.io/node-name": node}
	}
	stepLabels, first := step("wf-x7k2[0].measure(0)")
	_, second := step("wf-x7k2[0].measure(1)")
	_, other := step("wf-x7k2[0].measure(0:big)")
	_, root := step("wf-x7k2")
	for name, test := range map[string]struct {
		labels, annotations map[string]string
		pod                 string
		want                string
	}{
		"a bare pod is a run of its own":                {nil, nil, "llama", "gpu-workloads/llama"},
		"a Job's run has its name and UID":              {job("0a1b2c3d-4444"), nil, "qwen-abcde", "gpu-workloads/qwen-0a1b2c3d"},
		"the Job's next pod has the same":               {job("0a1b2c3d-4444"), nil, "qwen-fghij", "gpu-workloads/qwen-0a1b2c3d"},
		"a later Job of the same name is another run":   {job("99999999-4444"), nil, "qwen-abcde", "gpu-workloads/qwen-99999999"},
		"each index of an indexed Job is a run":         {job("0a1b2c3d-4444"), map[string]string{"batch.kubernetes.io/job-completion-index": "3"}, "p", "gpu-workloads/qwen-0a1b2c3d-3"},
		"the annotation run wins over the Job":          {job("0a1b2c3d-4444"), map[string]string{benchspec.AnnotationRun: "nightly-7"}, "p", "gpu-workloads/nightly-7"},
		"a run cannot leave its namespace":              {nil, map[string]string{benchspec.AnnotationRun: "../other/run"}, "p", "gpu-workloads/other-run-4009fb5a"},
		"an attempt of a workflow's step":               {stepLabels, first, "p0", "gpu-workloads/wf-x7k2-0-.measure-f24dc7ca"},
		"the next attempt is the same run":              {stepLabels, second, "p1", "gpu-workloads/wf-x7k2-0-.measure-f24dc7ca"},
		"an item of a loop is not an attempt":           {stepLabels, other, "p1", "gpu-workloads/wf-x7k2-0-.measure-0-big-31a35c53"},
		"a workflow of one pod has the workflow's name": {stepLabels, root, "p1", "gpu-workloads/wf-x7k2"},
	} {
		t.Run(name, func(t *testing.T) {
			got := benchspec.RunKey("gpu-workloads", test.labels, test.annotations, test.pod)
			if got != test.want {
				t.Errorf("RunKey = %q, want %q", got, test.want)
			}
		})
	}
}

func FuzzRunKey(f *testing.F) {
	f.Add("gpu-workloads", "run", "uid-uid-uid", "job", "wf", "wf[0].a(0)", "pod")
	f.Add("n", "", "", "", "", "", "..")
	f.Add("n", "", "", "", "w", "(0)", "p")
	valid := regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]*[a-z0-9])?/[a-z0-9]([a-z0-9._-]*[a-z0-9])?$`)
	f.Fuzz(func(t *testing.T, ns, run, uid, job, wf, node, pod string) {
		labels := map[string]string{"batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": job, "workflows.argoproj.io/workflow": wf}
		annotations := map[string]string{benchspec.AnnotationRun: run, "workflows.argoproj.io/node-name": node}
		key := benchspec.RunKey(ns, labels, annotations, pod)
		if !valid.MatchString(key) || len(key) > 300 {
			t.Errorf("RunKey = %q is no key", key)
		}
	})
}

func TestPlacementSurvivesTheAnnotation(t *testing.T) {
	want := benchspec.Placement{
		Node: "a100-spot-0", Provider: "aws", Region: "us-east-1", Zone: "us-east-1a", InstanceType: "p4de.24xlarge",
		GPUModel: "A100-80GB", GPUCount: 4, CapacityType: "spot", USDPerHour: 1.37, OnDemandUSDPerHour: 13.72,
		InterruptionRisk: 0.08, ExpectedHours: 0.55, ExpectedCostUSD: 0.75, OnDemandCostUSD: 6.86,
		Reason:  "cheapest of 2 feasible nodes: $0.75 vs $6.86 on a100-od-0",
		Refused: map[string]string{"l4-spot-0": "has L4-24GB, wanted A100-80GB"},
	}
	got, err := benchspec.ParsePlacement(want.String())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("placement differs (-want +got):\n%s", diff)
	}
}

func TestParsePlacementRefusesWhatTheSchedulerDoesNotWrite(t *testing.T) {
	for name, test := range map[string]struct{ value, want string }{
		"empty":            {"", "is not the JSON object"},
		"not JSON":         {"a100-spot-0", "is not the JSON object"},
		"a list":           {"[]", "is not the JSON object"},
		"no node":          {"{}", "field node is empty"},
		"negative count":   {`{"node":"n","gpuCount":-1}`, "gpuCount is -1"},
		"risk above one":   {`{"node":"n","interruptionRisk":1.5}`, "interruptionRisk is 1.5"},
		"negative price":   {`{"node":"n","usdPerHour":-1}`, "usdPerHour is -1"},
		"something behind": {`{"node":"n"} {}`, "something after"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := benchspec.ParsePlacement(test.value); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got error %v, want one with %q", err, test.want)
			}
		})
	}
	if p, err := benchspec.ParsePlacement(`{"node":"n","fromTheFuture":1}`); err != nil || p.Node != "n" {
		t.Errorf("a field of a later version: got %+v, %v; want it ignored", p, err)
	}
}
