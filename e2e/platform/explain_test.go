// SPDX-License-Identifier: Apache-2.0

package platform_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/spotbench/spotbench/pkg/benchspec"
)

// buildPlugin builds the kubectl plugin from the tree.
var buildPlugin = sync.OnceValues(func() (string, error) {
	path, err := filepath.Abs("../../_out/test/kubectl-spotbench")
	if err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-o", path, "./cmd/kubectl-spotbench")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the plugin: %w\n%s", err, out)
	}
	return path, nil
})

func plugin(t *testing.T) string {
	t.Helper()
	path, err := buildPlugin()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// ask runs the plugin with somebody's kubeconfig and gives what it prints.
func ask(t *testing.T, path, kubeconfig string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = append(cmd.Environ(), "KUBECONFIG="+kubeconfig)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%w: %s", err, stderr.String())
	}
	return out.String(), nil
}

// stranger is the kubeconfig of a ServiceAccount that may read pods of the workloads'
// namespace and nothing else.
func stranger(t *testing.T, name string) string {
	t.Helper()
	ctx, k := t.Context(), stage.Client
	if _, err := k.CoreV1().ServiceAccounts(workloads).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	if _, err := k.RbacV1().RoleBindings(workloads).Create(ctx, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"}, Subjects: subjects(name)}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.LoadFromFile(stage.Kubectl.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.AuthInfos = map[string]*clientcmdapi.AuthInfo{name: {Token: tokenFor(t, workloads, name, nil, nil)}}
	for _, c := range config.Contexts {
		c.AuthInfo = name
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	return path
}

func subjects(account string) []rbacv1.Subject {
	return []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: workloads, Name: account}}
}

func TestAPendingPodIsExplainedAndWhatIsAdvisedPlacesIt(t *testing.T) {
	path, admin := plugin(t), stage.Kubectl.Kubeconfig
	pod := gpuPod("explained", 1, map[string]string{"spotbench.dev/gpu-model": "L4-24GB", "spotbench.dev/capacity": "on-demand"})
	create(t, pod)
	eventually(t, 30*time.Second, "the pod to be refused", func() bool { _, why := nodeOf(t, pod.Name); return why != "" })

	text, err := ask(t, path, admin, "explain", pod.Name, "-n", workloads)
	if err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + text)
	for _, want := range []string{"Pod gpu-workloads/explained is pending", "L4-24GB (spot g6.12xlarge", "has spot capacity, wanted on-demand",
		"-> set capacity to any, so that spot will do", "has A100-80GB, wanted L4-24GB", "-> allow A100-80GB in gpu-model"} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q", want)
		}
	}

	var advised struct {
		Groups []struct {
			Ways []struct {
				Changes []struct{ Annotation, Value string } `json:"changes"`
			} `json:"ways"`
			Nodes []string `json:"nodes"`
		} `json:"groups"`
	}
	document, err := ask(t, path, admin, "explain", pod.Name, "-n", workloads, "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(document), &advised); err != nil {
		t.Fatal(err)
	}
	for _, group := range advised.Groups {
		if len(group.Nodes) == 0 || group.Nodes[0] != "l4-spot-0" {
			continue
		}
		change := group.Ways[0].Changes[0]
		if _, err := stage.Kubectl.Run(t.Context(), "annotate", "-n", workloads, "pod", pod.Name, "--overwrite", change.Annotation+"="+change.Value); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 30*time.Second, "the pod to be placed once what was advised is done", func() bool { on, _ := nodeOf(t, pod.Name); return on == "l4-spot-0" })

	text, err = ask(t, path, admin, "explain", pod.Name, "-n", workloads)
	if err != nil || !strings.Contains(text, "is on l4-spot-0: only feasible node: $") || !strings.Contains(text, "(chosen)") {
		t.Errorf("placed, it is explained by %q, %v", text, err)
	}
}

func TestASnapshotReplaysToTheNodeThatTheSchedulerThenChooses(t *testing.T) {
	path, admin := plugin(t), stage.Kubectl.Kubeconfig
	// The gate holds it until the snapshot is taken.
	pod := gpuPod("replayed", 2, map[string]string{"spotbench.dev/gpu-memory": "80Gi", "spotbench.dev/expected-duration": "45m"})
	pod.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "spotbench.dev/test"}}
	create(t, pod)
	file := filepath.Join(t.TempDir(), "snapshot.json")
	eventually(t, 30*time.Second, "the pod to be in a snapshot", func() bool {
		document, err := ask(t, path, admin, "snapshot")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(document), 0o600); err != nil {
			t.Fatal(err)
		}
		return strings.Contains(document, `"replayed"`)
	})
	var replayed struct {
		Decisions []struct{ Node, Reason string } `json:"decisions"`
	}
	// With no cluster to ask.
	document, err := ask(t, path, "/nonexistent", "replay", file, "--pod", workloads+"/replayed", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(document), &replayed); err != nil || len(replayed.Decisions) != 1 {
		t.Fatalf("%v: %s", err, document)
	}
	if _, err := stage.Kubectl.Run(t.Context(), "patch", "-n", workloads, "pod", pod.Name, "--type=json", `-p=[{"op":"remove","path":"/spec/schedulingGates"}]`); err != nil {
		t.Fatal(err)
	}
	var placed benchspec.Placement
	eventually(t, 30*time.Second, "the pod to be placed", func() bool {
		got, err := stage.Client.CoreV1().Pods(workloads).Get(t.Context(), pod.Name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		text, ok := got.Annotations[benchspec.AnnotationPlacement]
		if ok {
			placed, err = benchspec.ParsePlacement(text)
		}
		if err != nil {
			t.Fatal(err)
		}
		return ok
	})
	if want := replayed.Decisions[0]; placed.Node != want.Node || placed.Reason != want.Reason {
		t.Errorf("the scheduler chose %s (%s), the replay %s (%s)", placed.Node, placed.Reason, want.Node, want.Reason)
	}
}

func TestTheSnapshotIsForThoseWhoAreGivenTheRoleOnly(t *testing.T) {
	path, theirs := plugin(t), stranger(t, "curious")
	if _, err := ask(t, path, theirs, "snapshot"); err == nil || !strings.Contains(err.Error(), "spotbench-snapshot-reader") {
		t.Errorf("without rights: error %v, want one that names the role", err)
	}
	ctx, k := t.Context(), stage.Client
	portForward := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "curious"},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "spotbench-snapshot-reader"}, Subjects: subjects("curious")}
	if _, err := k.RbacV1().RoleBindings("spotbench-system").Create(ctx, portForward, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	// The scheduler itself asks who it is, also of those who reach its port.
	if _, err := ask(t, path, theirs, "snapshot"); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("with the port alone: error %v, want 403", err)
	}
	read := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "curious"},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "spotbench-snapshot-reader"}, Subjects: subjects("curious")}
	if _, err := k.RbacV1().ClusterRoleBindings().Create(ctx, read, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	// The scheduler remembers a refusal for some seconds.
	eventually(t, time.Minute, "the snapshot, with both roles", func() bool {
		document, err := ask(t, path, theirs, "snapshot")
		return err == nil && strings.Contains(document, `"kind": "PlacementSnapshot"`)
	})
}
