// SPDX-License-Identifier: Apache-2.0

package platform_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// agentOn is a client with the token that the kubelet gives to the node agent of
// the node: bound to that pod, so that it carries the claim of its node.
func agentOn(t *testing.T, node string) kubernetes.Interface {
	t.Helper()
	pods, err := stage.Client.CoreV1().Pods("spotbench-system").List(t.Context(), metav1.ListOptions{
		LabelSelector: "app.kubernetes.io/name=node-agent", FieldSelector: "spec.nodeName=" + node})
	if err != nil || len(pods.Items) != 1 {
		t.Fatalf("the node agent of %s: %v, %d pods", node, err, len(pods.Items))
	}
	pod := pods.Items[0]
	token := tokenFor(t, "spotbench-system", "node-agent", nil, &authenticationv1.BoundObjectReference{
		APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID})
	return clientWith(t, token)
}

func clientWith(t *testing.T, token string) kubernetes.Interface {
	t.Helper()
	config := rest.AnonymousClientConfig(stage.RESTConfig)
	config.BearerToken = token
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func tokenFor(t *testing.T, namespace, account string, audiences []string, bound *authenticationv1.BoundObjectReference) string {
	t.Helper()
	got, err := stage.Client.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), account, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{Audiences: audiences, BoundObjectRef: bound}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("token for %s/%s: %v", namespace, account, err)
	}
	return got.Status.Token
}

func TestAnAgentMayWriteToItsOwnNodeOnly(t *testing.T) {
	const own, other = "l4-spot-0", "a100-od-0"
	agent := agentOn(t, own)
	dryRun := []string{metav1.DryRunAll}
	patch := []byte(`{"metadata":{"annotations":{"spotbench.dev/test":"1"}}}`)
	condition := []byte(`{"status":{"conditions":[{"type":"SpotInterruption","status":"False","reason":"Test","message":"test"}]}}`)

	victim := gpuPod("bound-victim", 1, map[string]string{"spotbench.dev/gpu-model": "L4-24GB"})
	create(t, victim)
	eventually(t, 60*time.Second, "the pod to run", func() bool {
		pod, err := stage.Client.CoreV1().Pods(workloads).Get(t.Context(), victim.Name, metav1.GetOptions{})
		return err == nil && pod.Status.Phase == corev1.PodRunning && pod.Spec.NodeName == own
	})
	stranger := agentOn(t, other)
	unbound := clientWith(t, tokenFor(t, "spotbench-system", "node-agent", nil, nil))
	zero := int64(0)
	evict := func(c kubernetes.Interface) error {
		return c.PolicyV1().Evictions(workloads).Evict(t.Context(), &policyv1.Eviction{
			ObjectMeta:    metav1.ObjectMeta{Namespace: workloads, Name: victim.Name},
			DeleteOptions: &metav1.DeleteOptions{DryRun: dryRun, GracePeriodSeconds: &zero}})
	}
	remove := func(c kubernetes.Interface) error {
		return c.CoreV1().Pods(workloads).Delete(t.Context(), victim.Name, metav1.DeleteOptions{DryRun: dryRun, GracePeriodSeconds: &zero})
	}
	patchNode := func(c kubernetes.Interface, node, document string) func() error {
		return func() error {
			_, err := c.CoreV1().Nodes().Patch(t.Context(), node, types.MergePatchType, []byte(document), metav1.PatchOptions{DryRun: dryRun})
			return err
		}
	}
	event := func(c kubernetes.Interface, host string) func() error {
		return func() error {
			_, err := c.CoreV1().Events(workloads).Create(t.Context(), &corev1.Event{
				ObjectMeta: metav1.ObjectMeta{GenerateName: "test-", Namespace: workloads}, Reason: "Checkpointed", Type: corev1.EventTypeNormal,
				InvolvedObject: corev1.ObjectReference{Kind: "Pod", APIVersion: "v1", Namespace: workloads, Name: victim.Name},
				Source:         corev1.EventSource{Component: "spotbench-node-agent", Host: host}}, metav1.CreateOptions{DryRun: dryRun})
			return err
		}
	}
	tests := map[string]struct {
		do   func() error
		want bool
	}{
		"patch its own node": {func() error {
			_, err := agent.CoreV1().Nodes().Patch(t.Context(), own, types.MergePatchType, patch, metav1.PatchOptions{DryRun: dryRun})
			return err
		}, true},
		"patch another node": {func() error {
			_, err := agent.CoreV1().Nodes().Patch(t.Context(), other, types.MergePatchType, patch, metav1.PatchOptions{DryRun: dryRun})
			return err
		}, false},
		"set its own node's condition": {func() error {
			_, err := agent.CoreV1().Nodes().Patch(t.Context(), own, types.StrategicMergePatchType, condition, metav1.PatchOptions{DryRun: dryRun}, "status")
			return err
		}, true},
		"set another node's condition": {func() error {
			_, err := agent.CoreV1().Nodes().Patch(t.Context(), other, types.StrategicMergePatchType, condition, metav1.PatchOptions{DryRun: dryRun}, "status")
			return err
		}, false},
		"label its own node":                       {patchNode(agent, own, `{"metadata":{"labels":{"nvidia.com/gpu.product":"NVIDIA-H200"}}}`), false},
		"leave its own node out of load balancers": {patchNode(agent, own, `{"metadata":{"labels":{"node.kubernetes.io/exclude-from-external-load-balancers":"spotbench"}}}`), true},
		"leave it out in somebody else's name":     {patchNode(agent, own, `{"metadata":{"labels":{"node.kubernetes.io/exclude-from-external-load-balancers":"true"}}}`), false},
		"leave it out and change another label":    {patchNode(agent, own, `{"metadata":{"labels":{"node.kubernetes.io/exclude-from-external-load-balancers":"spotbench","topology.kubernetes.io/zone":"x"}}}`), false},
		"leave it out and take another label away": {patchNode(agent, own, `{"metadata":{"labels":{"node.kubernetes.io/exclude-from-external-load-balancers":"spotbench","topology.kubernetes.io/zone":null}}}`), false},
		"leave another node out of load balancers": {patchNode(agent, other, `{"metadata":{"labels":{"node.kubernetes.io/exclude-from-external-load-balancers":"spotbench"}}}`), false},
		"cordon its own node":                      {patchNode(agent, own, `{"spec":{"unschedulable":true}}`), false},
		"set its taint on its own node": {func() error {
			node, err := agent.CoreV1().Nodes().Get(t.Context(), own, metav1.GetOptions{})
			if err != nil {
				return err
			}
			taints, err := json.Marshal(append(node.Spec.Taints, corev1.Taint{Key: "spotbench.dev/interruption", Value: "SpotReclaim", Effect: corev1.TaintEffectNoSchedule}))
			if err != nil {
				return err
			}
			return patchNode(agent, own, `{"spec":{"taints":`+string(taints)+`}}`)()
		}, true},
		"take other people's taints off its own node":         {patchNode(agent, own, `{"spec":{"taints":[]}}`), false},
		"patch its node with a token that is not of that pod": {patchNode(unbound, own, string(patch)), false},
		"report an event of a pod from its own node":          {event(agent, own), true},
		"report an event in another node's name":              {event(agent, other), false},
		"write a placement through a pod's status": {func() error {
			_, err := agent.CoreV1().Pods(workloads).Patch(t.Context(), victim.Name, types.MergePatchType, []byte(`{"metadata":{"annotations":{"spotbench.dev/placement":"{\"node\":\"x\"}"}}}`), metav1.PatchOptions{DryRun: dryRun}, "status")
			return err
		}, false},
		"delete another node": {func() error {
			return agent.CoreV1().Nodes().Delete(t.Context(), other, metav1.DeleteOptions{DryRun: dryRun})
		}, false},
		"evict a pod of its own node":    {func() error { return evict(agent) }, true},
		"evict a pod of another's node":  {func() error { return evict(stranger) }, false},
		"delete a pod of its own node":   {func() error { return remove(agent) }, true},
		"delete a pod of another's node": {func() error { return remove(stranger) }, false},
		"read a Secret of the workloads": {func() error {
			_, err := agent.CoreV1().Secrets(workloads).List(t.Context(), metav1.ListOptions{})
			return err
		}, false},
		"read a Secret of its namespace": {func() error {
			_, err := agent.CoreV1().Secrets("spotbench-system").List(t.Context(), metav1.ListOptions{})
			return err
		}, false},
		"create a pod in its namespace": {func() error {
			_, err := agent.CoreV1().Pods("spotbench-system").Create(t.Context(), gpuPod("escape", 1, nil), metav1.CreateOptions{DryRun: dryRun})
			return err
		}, false},
		"run a command in a workload pod": {func() error {
			return agent.CoreV1().RESTClient().Post().AbsPath("/api/v1/namespaces/"+workloads+"/pods/"+victim.Name+"/exec").Param("command", "id").Do(t.Context()).Error()
		}, false},
	}
	for name, tt := range tests {
		t.Run("it may "+map[bool]string{true: "", false: "not "}[tt.want]+name, func(t *testing.T) {
			err := tt.do()
			switch {
			case tt.want && err != nil:
				t.Errorf("refused: %v", err)
			case !tt.want && err == nil:
				t.Error("allowed")
			case !tt.want && !apierrors.IsForbidden(err) && !apierrors.IsInvalid(err):
				t.Errorf("refused, but not as forbidden: %v", err)
			}
		})
	}
}

func TestTheCatalogAcceptsWritesOnlyWithAWritersToken(t *testing.T) {
	insecure := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	put := func(t *testing.T, base, token string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, base+"/v1/runs/gpu-workloads%2Fintruder", bytes.NewReader([]byte(`{"namespace":"gpu-workloads","podName":"intruder","podUID":"u","model":"m","benchmark":"b","status":"running","startedAt":"2026-01-01T00:00:00Z"}`)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := insecure.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if body, _ := io.ReadAll(resp.Body); token != "" && bytes.Contains(body, []byte(token)) {
			t.Errorf("the answer repeats the token")
		}
		return resp.StatusCode
	}
	tests := map[string]struct {
		token string
		want  int
	}{
		"no token is 401":                                       {"", http.StatusUnauthorized},
		"a token that nobody issued is 401":                     {"eyJhbGciOiJub25lIn0.e30.x", http.StatusUnauthorized},
		"a writer's token for the API server's audience is 401": {tokenFor(t, "spotbench-system", "node-agent", nil, nil), http.StatusUnauthorized},
		"a token of an account that is no writer is 403":        {tokenFor(t, workloads, "default", []string{"spotbench-catalog"}, nil), http.StatusForbidden},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := put(t, stage.CatalogTLSURL, tt.token); got != tt.want {
				t.Errorf("status %d, want %d", got, tt.want)
			}
		})
	}
	t.Run("the plain listener takes no write, not even with a writer's token", func(t *testing.T) {
		token := tokenFor(t, "spotbench-system", "node-agent", []string{"spotbench-catalog"}, nil)
		if got := put(t, stage.CatalogURL, token); got != http.StatusMethodNotAllowed && got != http.StatusForbidden {
			t.Errorf("status %d, want 405 or 403", got)
		}
	})
	t.Run("the intruder's run is not in the catalog", func(t *testing.T) {
		resp, err := insecure.Get(stage.CatalogURL + "/v1/runs/gpu-workloads%2Fintruder")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("status %d, want 404", resp.StatusCode)
		}
	})
}

func TestNoSecretIsInAnyLog(t *testing.T) {
	secrets := map[string]string{"the head of every signed token": "eyJhbGciOi", "a private key": "PRIVATE KEY"}
	ours := []string{"spotbench-system", "model-catalog", "data-storage", workloads}
	for _, namespace := range ours {
		list, err := stage.Client.CoreV1().Secrets(namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range list.Items {
			for key, value := range secret.Data {
				if len(value) >= 16 { // shorter ones are names
					secrets[namespace+"/"+secret.Name+" "+key] = strings.TrimSpace(string(value))
				}
			}
		}
	}
	searched := map[string]int{}
	for _, namespace := range ours {
		pods, err := stage.Client.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, pod := range pods.Items {
			node, err := stage.Client.CoreV1().Nodes().Get(t.Context(), pod.Spec.NodeName, metav1.GetOptions{})
			gone := err != nil || !nodeReady(node)
			if pod.Status.Phase == corev1.PodPending {
				continue
			}
			for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
				text, err := stage.Client.CoreV1().Pods(namespace).GetLogs(pod.Name, &corev1.PodLogOptions{Container: c.Name}).DoRaw(t.Context())
				if err != nil {
					if !gone {
						t.Errorf("%s/%s %s has no log to be searched: %v", namespace, pod.Name, c.Name, err)
					}
					continue // its node was taken away, and its log with it
				}
				searched[namespace]++
				for what, secret := range secrets {
					if strings.Contains(string(text), secret) {
						t.Errorf("%s/%s %s logs %s", namespace, pod.Name, c.Name, what)
					}
				}
			}
		}
	}
	for _, namespace := range ours[:3] {
		if searched[namespace] == 0 {
			t.Errorf("no log of %s was searched", namespace)
		}
	}
	t.Logf("logs searched for %d secrets: %v", len(secrets), searched)
}

func nodeReady(node *corev1.Node) bool {
	return slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// TestTheAgentHasTheRightsOfItsTableAndNoOthers asks the kernel what the running agent may.
// That it can do its work with them is shown by the tests that interrupt benchmarks.
func TestTheAgentHasTheRightsOfItsTableAndNoOthers(t *testing.T) {
	const node = "a100-spot-0"
	pid := agentPID(t, node)
	read := func(command string) string {
		out, err := stage.Cluster.Exec(t.Context(), node, "sh", "-c", command)
		if err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		return strings.TrimSpace(string(out))
	}
	for field, want := range map[string]string{
		// CHOWN is bit 0, DAC_OVERRIDE 1, FOWNER 3, KILL 5.
		"CapEff": "000000000000002b", "CapPrm": "000000000000002b", "CapBnd": "000000000000002b", "CapInh": "0000000000000000", "CapAmb": "0000000000000000",
		"NoNewPrivs": "1", "Seccomp": "2",
	} {
		if got := read("sed -n 's/^" + field + ":[[:space:]]*//p' /proc/" + pid + "/status"); got != want {
			t.Errorf("%s is %s, want %s", field, got, want)
		}
	}
	if got := read("grep -c '^[^ ]* / [^ ]* ro[, ]' /proc/" + pid + "/mounts"); got != "1" {
		t.Errorf("%s read-only root file systems, want 1:\n%s", got, read("cat /proc/"+pid+"/mounts"))
	}
	// A privileged container has all of the node's devices.
	if devices := read("ls -A /proc/" + pid + "/root/dev"); strings.Contains(devices, "loop") || strings.Contains(devices, "kmsg") || !strings.Contains(devices, "null") {
		t.Errorf("devices in the container: %q", strings.Fields(devices))
	}
}
