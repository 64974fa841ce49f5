// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
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

// So must the sweep of the benchmark pipeline, with the parameters that it comes with.
func TestThePipelinesSweepAgreesWithThePodContractAndTheFlags(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "manifests", "workflows", "pipeline.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var template struct {
		Spec struct {
			Arguments struct {
				Parameters []struct{ Name, Value string }
			}
			Templates []struct {
				Name      string
				Metadata  struct{ Annotations map[string]string }
				Container *corev1.Container
				Volumes   []corev1.Volume
			}
		}
	}
	if err := yaml.Unmarshal(text, &template); err != nil {
		t.Fatal(err)
	}
	values := []string{"{{workflow.name}}", "nightly"}
	for _, p := range template.Spec.Arguments.Parameters {
		values = append(values, "{{workflow.parameters."+p.Name+"}}", p.Value)
	}
	fill := strings.NewReplacer(values...)
	for _, step := range template.Spec.Templates {
		if step.Name != "sweep" {
			continue
		}
		for name, value := range step.Metadata.Annotations {
			step.Metadata.Annotations[name] = fill.Replace(value)
		}
		spec, err := benchspec.Parse(step.Metadata.Annotations)
		if err != nil {
			t.Fatal(err)
		}
		args := strings.Fields(fill.Replace(strings.Join(step.Container.Args, "\n")))
		cmd := command()
		if err := cmd.ParseFlags(args); err != nil {
			t.Fatal(err)
		}
		for flag, want := range map[string]string{
			"checkpoint-dir": spec.CheckpointPath, "results-dir": spec.ResultsPath, "model": spec.Model, "benchmark": spec.Benchmark,
		} {
			if got := cmd.Flag(flag).Value.String(); got != want {
				t.Errorf("--%s=%s, but the annotation says %q", flag, got, want)
			}
		}
		if spec.Run != "nightly" {
			t.Errorf("run %q, want the workflow's name", spec.Run)
		}
		if len(step.Container.Command) == 0 {
			t.Error("no command: Argo would look for it in a registry")
		}
		return
	}
	t.Fatal("no template sweep")
}
