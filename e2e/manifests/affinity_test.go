// SPDX-License-Identifier: Apache-2.0

package manifests_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/gpu"
)

// benchmark is a pod with annotations and perhaps an affinity of its own.
func benchmark(annotations map[string]string, terms ...corev1.NodeSelectorTerm) *corev1.Pod {
	p := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{GenerateName: "bench-", Namespace: "gpu-workloads", Annotations: annotations},
		Spec:       corev1.PodSpec{SchedulerName: benchspec.SchedulerName, Containers: []corev1.Container{{Name: "a", Image: "a:v1"}}}}
	if len(terms) > 0 {
		p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: terms}}}
	}
	return p
}

func inZone(zone string) corev1.NodeSelectorTerm {
	return corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelTopologyZone, Operator: corev1.NodeSelectorOpIn, Values: []string{zone}},
		{Key: "node-role.spotbench.dev/system", Operator: corev1.NodeSelectorOpDoesNotExist}}}
}

// rendered is what `kubectl spotbench render` makes of the pods.
func rendered(t *testing.T, pods []*corev1.Pod) []*corev1.Pod {
	t.Helper()
	var in bytes.Buffer
	for _, p := range pods {
		text, err := yaml.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&in, "---\n%s", text)
	}
	cmd := exec.CommandContext(t.Context(), "go", "run", "../../cmd/kubectl-spotbench", "render", "-f", "-")
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = &in, &stderr
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("kubectl spotbench render: %v\n%s", err, stderr.String())
	}
	decoder := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	out := make([]*corev1.Pod, len(pods))
	for i := range pods {
		out[i] = new(corev1.Pod)
		if err := decoder.Decode(out[i]); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// admitted is the pod as the API server, with our policy, would store it.
func admitted(ctx context.Context, t *testing.T, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	p := pod.DeepCopy()
	if err := admin.Create(ctx, p, client.DryRunAll); err != nil {
		t.Fatalf("%v: %v", pod.Annotations, err)
	}
	return p
}

func TestThePolicyAddsTheAffinityThatRenderWrites(t *testing.T) {
	pods := map[string]*corev1.Pod{}
	add := func(models string) { pods[models] = benchmark(map[string]string{benchspec.AnnotationGPUModel: models}) }
	for _, m := range gpu.Models() {
		for _, spelling := range append([]string{m.Name, strings.ToLower(m.Name)}, m.Aliases...) {
			if !strings.HasPrefix(spelling, "nvidia-") {
				add(spelling)
				add("NVIDIA-" + spelling)
			}
		}
	}
	for _, models := range []string{"H100-80GB, A100-80GB", "H100-80GB|A100-80GB, L4-24GB", "H100-80GB-MIG-1g.10gb", "NVIDIA-A100-SXM4-80GB-MIG-3g.40gb", "A100-40GB-MIG-1g.5gb, A100-40GB",
		"NVIDIA-Future-1", "Tesla-K80", "NVIDIA-Future-1-MIG-1g.10gb"} {
		add(models)
	}
	model, capacity := benchspec.AnnotationGPUModel, benchspec.AnnotationCapacity
	pods["spot, any model"] = benchmark(map[string]string{capacity: "spot"})
	pods["on demand"] = benchmark(map[string]string{capacity: "on-demand", model: "L4-24GB"})
	pods["any capacity"] = benchmark(map[string]string{capacity: "any", model: "L4-24GB"})
	pods["any capacity, any model"] = benchmark(map[string]string{capacity: "any"})
	pods["spot H100"] = benchmark(map[string]string{capacity: "spot", model: "H100-80GB"})
	pods["with terms of its own"] = benchmark(map[string]string{model: "H100-80GB, L4", capacity: "spot"}, inZone("us-east-1a"), inZone("us-east-1b"))
	field := inZone("us-east-1a")
	field.MatchFields = []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpNotIn, Values: []string{"a"}}}
	pods["with a field of the node"] = benchmark(map[string]string{model: "H100-80GB"}, field)
	preferring := benchmark(map[string]string{model: "H100-80GB"})
	preferring.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{Weight: 1, Preference: inZone("a")}}}}
	pods["with a preference of its own"] = preferring

	names := slices.Sorted(maps.Keys(pods))
	list := make([]*corev1.Pod, len(names))
	for i, name := range names {
		list[i] = pods[name]
	}
	for i, want := range rendered(t, list) {
		got := admitted(t.Context(), t, list[i])
		if diff := cmp.Diff(want.Spec.Affinity, got.Spec.Affinity); diff != "" {
			t.Errorf("%s: the pod is admitted with another affinity than render writes (-render +admitted):\n%s", names[i], diff)
		}
		if again := admitted(t.Context(), t, want); !cmp.Equal(want.Spec.Affinity, again.Spec.Affinity) {
			t.Errorf("%s: a pod that render has been at is changed:\n%s", names[i], cmp.Diff(want.Spec.Affinity, again.Spec.Affinity))
		}
	}
	t.Logf("%d pods", len(list))
}

func TestThePolicyLeavesOtherPodsAlone(t *testing.T) {
	byClaim := benchmark(map[string]string{benchspec.AnnotationGPUModel: "H100-80GB"})
	claim := "gpu"
	byClaim.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu", ResourceClaimName: &claim}}
	foreign := benchmark(map[string]string{benchspec.AnnotationGPUModel: "H100-80GB"})
	foreign.Spec.SchedulerName = "default-scheduler"
	for name, pod := range map[string]*corev1.Pod{
		"one that asks for GPUs by a claim": byClaim,
		"another scheduler's":               foreign,
		"one without annotations":           benchmark(nil),
		"one with others of ours":           benchmark(map[string]string{benchspec.AnnotationGPUMemory: "80Gi"}),
	} {
		if got := admitted(t.Context(), t, pod); got.Spec.Affinity != nil {
			t.Errorf("%s gets %v", name, got.Spec.Affinity)
		}
	}
	malformed := benchmark(map[string]string{benchspec.AnnotationGPUModel: "H100-80"})
	if err := admin.Create(t.Context(), malformed, client.DryRunAll); err == nil || !strings.Contains(err.Error(), "must be known GPU models") {
		t.Errorf("a pod that names no model is told %v, want the message of the policy of annotations", err)
	}
}
