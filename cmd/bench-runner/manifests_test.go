// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/spotbench/spotbench/pkg/benchspec"
)

// The demo's Jobs must mean the same to bench-runner, the scheduler and the agent.
func TestTheDemosJobsAgreeWithThePodContractAndTheFlags(t *testing.T) {
	for _, name := range []string{"llama-3-1-70b", "qwen2-5-72b", "mistral-7b"} {
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("..", "..", "manifests", "demo", name+".yaml"))
			if err != nil {
				t.Fatal(err)
			}
			var job batchv1.Job
			if err := yaml.UnmarshalStrict(text, &job); err != nil {
				t.Fatal(err)
			}
			if job.Name != name || job.Namespace != "gpu-workloads" {
				t.Errorf("is %s/%s, want gpu-workloads/%s", job.Namespace, job.Name, name)
			}
			pod := job.Spec.Template
			spec, err := benchspec.Parse(pod.Annotations)
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == "bench-runner" })
			if i < 0 {
				t.Fatal("no container bench-runner")
			}
			runner := pod.Spec.Containers[i]
			cmd := command()
			if err := cmd.ParseFlags(runner.Args); err != nil {
				t.Fatal(err)
			}
			for flag, want := range map[string]string{
				"checkpoint-dir": spec.CheckpointPath, "results-dir": spec.ResultsPath, "model": spec.Model, "benchmark": spec.Benchmark,
			} {
				if got := cmd.Flag(flag).Value.String(); got != want {
					t.Errorf("--%s=%s, but the annotation says %q", flag, got, want)
				}
			}
			for _, path := range []string{spec.CheckpointPath, spec.ResultsPath} {
				if !slices.ContainsFunc(runner.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == path }) {
					t.Errorf("no volume is mounted on %s", path)
				}
			}
			ignored := slices.ContainsFunc(job.Spec.PodFailurePolicy.Rules, func(r batchv1.PodFailurePolicyRule) bool {
				return r.Action == batchv1.PodFailurePolicyActionIgnore && r.OnExitCodes != nil && slices.Contains(r.OnExitCodes.Values, exitInterrupted)
			})
			if !ignored {
				t.Errorf("exit code %d counts as a failure of the Job", exitInterrupted)
			}
		})
	}
}
