// SPDX-License-Identifier: Apache-2.0

package manifests_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/spotbench/spotbench/pkg/manifest"
)

// applied are the kustomizations that people apply, and Argo CD.
func applied(t *testing.T) []string {
	t.Helper()
	var dirs []string
	for _, under := range []string{"overlays", "argocd", "benchmarks", "workflows", "demo"} {
		err := filepath.WalkDir(filepath.Join(root, under), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Name() == "kustomization.yaml" {
				dirs = append(dirs, filepath.Dir(path))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return dirs
}

func build(t *testing.T, dir string) []manifest.Object {
	t.Helper()
	objects, err := manifest.Build(dir)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func TestTheAPIServerTakesEveryObjectOfEveryKustomization(t *testing.T) {
	for _, dir := range applied(t) {
		t.Run(strings.TrimPrefix(dir, root+"/"), func(t *testing.T) {
			taken, left := 0, 0
			objects := build(t, dir)
			for i := range objects {
				o := &objects[i]
				if o.GetKind() == withoutDefinition {
					left++
					continue
				}
				if err := apply(t.Context(), o, client.DryRunAll); err != nil {
					t.Errorf("%s: %s: %v", o.File, o, err)
					continue
				}
				taken++
			}
			t.Logf("%d objects taken by a server-side dry run, %d of kinds without a definition left out", taken, left)
		})
	}
}

func TestEveryComponentIsInAKustomizationAndSoChecked(t *testing.T) {
	var all strings.Builder
	for _, dir := range applied(t) {
		text, err := os.ReadFile(filepath.Join(dir, "kustomization.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	components, err := os.ReadDir(root + "/components")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range components {
		if !strings.Contains(all.String(), "../../components/"+c.Name()+"\n") {
			t.Errorf("components/%s is in no overlay", c.Name())
		}
	}
}

func TestEveryWorkloadIsAdmittedInItsNamespace(t *testing.T) {
	seen := map[string]bool{}
	for _, dir := range applied(t) {
		objects := build(t, dir)
		for i := range objects {
			o := &objects[i]
			pod, ok := podOf(t, o)
			if !ok {
				continue
			}
			seen[o.String()] = true
			if err := admin.Create(t.Context(), pod, client.DryRunAll); err != nil {
				t.Errorf("the pod of %s (%s) is refused: %v", o, dir, err)
			}
		}
	}
	for _, workload := range []string{"Deployment model-catalog/catalog-api", "Deployment spotbench-system/scheduler", "DaemonSet spotbench-system/node-agent",
		"StatefulSet data-storage/redis", "StatefulSet data-storage/catalog-db", "Deployment data-storage/object-store", "Job gpu-workloads/mistral-7b"} {
		if !seen[workload] {
			t.Errorf("%s is in no kustomization", workload)
		}
	}
	t.Logf("%d workloads admitted", len(seen))
}

// levels of Pod Security, by namespace.
var levels = map[string]string{
	"model-catalog": "restricted", "data-storage": "restricted", "gateway": "restricted",
	"gpu-workloads": "baseline", "monitoring": "baseline", "argo-workflows": "baseline", "argocd": "baseline",
	"gpu-operator": "privileged", "spotbench-system": "privileged",
}

func TestAPodThatViolatesItsNamespacesLevelIsRefused(t *testing.T) {
	yes, no := true, false
	user := int64(65532)
	pod := func(change func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "violator"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: "a:v1"}}}}
		change(p)
		return p
	}
	kinds := []struct {
		name string
		pod  *corev1.Pod
		// in are the levels that let it in.
		in string
	}{
		{"a pod with nothing said about its user", pod(func(*corev1.Pod) {}), "baseline privileged"},
		{"a pod on the network of its node", pod(func(p *corev1.Pod) { p.Spec.HostNetwork = true }), "privileged"},
		{"a pod with a directory of its node", pod(func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}}}
		}), "privileged"},
		{"a privileged container", pod(func(p *corev1.Pod) {
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: &yes}
		}), "privileged"},
		{"a pod that gave everything up", pod(func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: &yes, RunAsUser: &user, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{AllowPrivilegeEscalation: &no, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}
		}), "restricted baseline privileged"},
	}
	var namespaces corev1.NamespaceList
	if err := admin.List(t.Context(), &namespaces, client.MatchingLabels{"app.kubernetes.io/part-of": "spotbench"}); err != nil {
		t.Fatal(err)
	}
	if len(namespaces.Items) != len(levels) {
		t.Errorf("%d namespaces, want %d", len(namespaces.Items), len(levels))
	}
	for namespace, level := range levels {
		for _, kind := range kinds {
			p := kind.pod.DeepCopy()
			p.Namespace = namespace
			err := admin.Create(t.Context(), p, client.DryRunAll)
			switch admitted := strings.Contains(kind.in, level); {
			case admitted && err != nil:
				t.Errorf("%s in %s (%s): refused: %v", kind.name, namespace, level, err)
			case !admitted && (err == nil || !strings.Contains(err.Error(), "violates PodSecurity")):
				t.Errorf("%s in %s (%s): %v, want a refusal by Pod Security", kind.name, namespace, level, err)
			}
		}
	}
}

func TestCustomResourcesThatAreWrongAreRefused(t *testing.T) {
	for name, test := range map[string]struct{ object, says string }{
		"a NodePool that consolidates at a whim": {`{apiVersion: karpenter.sh/v1, kind: NodePool, metadata: {name: a}, spec: {disruption: {consolidationPolicy: Whenever, consolidateAfter: 1m},
			template: {spec: {nodeClassRef: {group: a.b, kind: C, name: d}, requirements: []}}}}`, "consolidationPolicy"},
		"a NodePool whose label is Karpenter's own, by a rule of its definition": {`{apiVersion: karpenter.sh/v1, kind: NodePool, metadata: {name: a}, spec: {disruption: {consolidateAfter: 1m},
			template: {metadata: {labels: {karpenter.sh/nodepool: b}}, spec: {nodeClassRef: {group: a.b, kind: C, name: d}, requirements: []}}}}`, "karpenter.sh/nodepool"},
		"a Cluster of no instances":                {`{apiVersion: postgresql.cnpg.io/v1, kind: Cluster, metadata: {name: a, namespace: data-storage}, spec: {instances: 0, storage: {size: 1Gi}}}`, "spec.instances"},
		"an HTTPRoute with a misspelled field":     {`{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: a, namespace: model-catalog}, spec: {hostname: a}}`, "hostname"},
		"an Application without a project":         {`{apiVersion: argoproj.io/v1alpha1, kind: Application, metadata: {name: a, namespace: argocd}, spec: {destination: {}}}`, "spec.project"},
		"an ExternalSecret with an unknown policy": {`{apiVersion: external-secrets.io/v1, kind: ExternalSecret, metadata: {name: a, namespace: model-catalog}, spec: {target: {creationPolicy: Mine}}}`, "creationPolicy"},
		"a gang of nobody":                         {`{apiVersion: scheduling.x-k8s.io/v1alpha1, kind: PodGroup, metadata: {name: a, namespace: gpu-workloads}, spec: {minMember: 0}}`, "minMember"},
	} {
		t.Run(name, func(t *testing.T) {
			var o manifest.Object
			if err := yaml.Unmarshal([]byte(test.object), &o.Object); err != nil {
				t.Fatal(err)
			}
			if err := apply(t.Context(), &o, client.DryRunAll); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want a refusal that says %s", err, test.says)
			}
		})
	}
}

func TestTheOperatorsRulesAreThoseThatPromtoolTests(t *testing.T) {
	text, err := os.ReadFile(root + "/components/monitoring/scheduler.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var tested map[string]any
	if err := yaml.Unmarshal(text, &tested); err != nil {
		t.Fatal(err)
	}
	text, err = os.ReadFile(root + "/components/monitoring-operator/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var operators struct {
		Spec map[string]any `json:"spec"`
	}
	if err := yaml.Unmarshal(text, &operators); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(tested, operators.Spec); diff != "" {
		t.Errorf("components/monitoring-operator/rules.yaml differs from what is tested: put the groups of components/monitoring/scheduler.rules.yaml under its spec (-tested +ours):\n%s", diff)
	}
}
