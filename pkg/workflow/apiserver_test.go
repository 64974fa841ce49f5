// SPDX-License-Identifier: Apache-2.0

package workflow_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	yamlutil "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/yaml"

	"github.com/spotbench/spotbench/pkg/localcluster/apiservertest"
	"github.com/spotbench/spotbench/pkg/workflow"
)

// crd is Argo's Workflow as far as it matters here. Its minimal CRDs make spec one
// atomic field, its full ones do not.
const crd = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: workflows.argoproj.io}
spec:
  group: argoproj.io
  names: {kind: Workflow, listKind: WorkflowList, plural: workflows, singular: workflow}
  scope: Namespaced
  versions:
    - name: v1alpha1
      served: true
      storage: true
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec: {type: object, x-kubernetes-map-type: %s, x-kubernetes-preserve-unknown-fields: true}
            status: {type: object, x-kubernetes-map-type: atomic, x-kubernetes-preserve-unknown-fields: true}
`

// cluster is a real API server with the agents' own roles and policies.
type cluster struct {
	t       *testing.T
	config  *rest.Config
	admin   kubernetes.Interface
	objects dynamic.Interface
}

// startCluster skips the test where the programs of the local cluster are not built
// (`localcluster build`).
func startCluster(t *testing.T) *cluster {
	t.Helper()
	config := apiservertest.Start(t)
	c := &cluster{t: t, config: config, admin: kubernetes.NewForConfigOrDie(config), objects: dynamic.NewForConfigOrDie(config)}
	for _, namespace := range []string{"spotbench-system", "gpu-workloads"} {
		if _, err := c.admin.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"rbac.yaml", "workflow-policy.yaml"} {
		text, err := os.ReadFile("../../manifests/base/node-agent/" + file)
		if err != nil {
			t.Fatal(err)
		}
		c.apply(text)
	}
	return c
}

// apply creates the objects of a manifest; those of a namespace in spotbench-system.
func (c *cluster) apply(manifest []byte) {
	c.t.Helper()
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(c.admin.Discovery()))
	documents := yamlutil.NewYAMLReader(bufio.NewReader(bytes.NewReader(manifest)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			c.t.Fatal(err)
		}
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(document, &object.Object); err != nil {
			c.t.Fatal(err)
		}
		if len(object.Object) == 0 {
			continue
		}
		kind := object.GroupVersionKind()
		mapping, err := mapper.RESTMapping(kind.GroupKind(), kind.Version)
		if err != nil {
			c.t.Fatal(err)
		}
		resource := c.objects.Resource(mapping.Resource)
		if mapping.Scope.Name() == "namespace" {
			_, err = resource.Namespace("spotbench-system").Create(c.t.Context(), object, metav1.CreateOptions{})
		} else {
			_, err = resource.Create(c.t.Context(), object, metav1.CreateOptions{})
		}
		if err != nil {
			c.t.Fatalf("%s %s: %v", kind.Kind, object.GetName(), err)
		}
	}
}

// agent is what the API server makes of the token of the agent on the node.
func (c *cluster) agent(node string) *rest.Config {
	config := rest.CopyConfig(c.config)
	config.QPS, config.Burst = 500, 500
	config.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:spotbench-system:node-agent", Groups: []string{"system:serviceaccounts", "system:authenticated"},
		Extra: map[string][]string{"authentication.kubernetes.io/node-name": {node}},
	}
	return config
}

// keeper is an agent's keeper, and the events it makes.
func (c *cluster) keeper(node string) (*workflow.Keeper, *record.FakeRecorder) {
	c.t.Helper()
	events := record.NewFakeRecorder(1000)
	k, err := workflow.NewKeeper(workflow.Config{Node: node, Namespace: "spotbench-system", Cluster: c.agent(node), Events: events,
		Metrics: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		c.t.Fatal(err)
	}
	return k, events
}

func (c *cluster) workflows(config *rest.Config) dynamic.ResourceInterface {
	return dynamic.NewForConfigOrDie(config).Resource(workflow.Resource).Namespace("gpu-workloads")
}

func (c *cluster) create(name string) {
	c.t.Helper()
	object := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
		"metadata": map[string]any{"name": name, "labels": map[string]any{"team": "a"}}, "spec": map[string]any{"entrypoint": "main", "templates": []any{map[string]any{"name": "main"}}}}}
	if _, err := c.workflows(c.config).Create(c.t.Context(), object, metav1.CreateOptions{FieldManager: "kubectl-create"}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) state(name string) workflow.State {
	c.t.Helper()
	object, err := c.workflows(c.config).Get(c.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	s, err := workflow.Read(object)
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

func (c *cluster) patch(name, manager, patch string) {
	c.t.Helper()
	if _, err := c.workflows(c.config).Patch(c.t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: manager}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) eventually(what string, holds func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("waited 30s for %s", what)
		}
	}
}

// said are the events made so far that begin with the prefix.
func said(events *record.FakeRecorder, prefix string) []string {
	var all []string
	for {
		select {
		case e := <-events.Events:
			if strings.HasPrefix(e, prefix) {
				all = append(all, e)
			}
		default:
			return all
		}
	}
}

// running are keepers that stand for the Lease until the test ends.
func running(t *testing.T, eligible func() bool, keepers ...*workflow.Keeper) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	for _, k := range keepers {
		go func() { k.Run(ctx, eligible); done <- struct{}{} }()
	}
	t.Cleanup(func() {
		cancel()
		for range keepers {
			<-done
		}
	})
}

func always() bool { return true }

func notice(node, id string, window time.Duration, pods ...string) workflow.Interruption {
	i := workflow.Interruption{Node: node, Notice: id, NoticeAt: time.Now(), Window: window}
	for _, name := range pods {
		i.Pods = append(i.Pods, retried(name))
	}
	return i
}

// Against a real API server, with the roles and the policies that the agents have.
func TestWorkflowsAreSuspendedAndResumed(t *testing.T) {
	c := startCluster(t)
	const ns = "gpu-workloads"
	t.Run("a cluster without Argo is no error, and is watched for it", func(t *testing.T) {
		k, events := c.keeper("n1")
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if retried, err := k.Suspend(ctx, ns, "wf", notice("n1", "x", time.Minute, "p")); err != nil || retried != nil {
			t.Errorf("Suspend = %v, %v; want nothing", retried, err)
		}
		if held, err := k.Held(ctx, "n1", "x"); err != nil || len(held) != 0 {
			t.Errorf("Held = %v, %v; want nothing", held, err)
		}
		k.Run(ctx, always) // ends with ctx
		if got := said(events, ""); len(got) > 0 {
			t.Errorf("events %v", got)
		}
	})
	for _, kind := range []string{"atomic", "granular"} {
		t.Run("with a CRD whose spec is "+kind, func(t *testing.T) {
			c := &cluster{t: t, config: c.config, admin: c.admin, objects: c.objects}
			c.apply(fmt.Appendf(nil, crd, kind))
			c.eventually("the CRD to be served", func() bool {
				_, err := c.workflows(c.config).List(t.Context(), metav1.ListOptions{})
				return err == nil
			})
			t.Cleanup(func() {
				crds := c.objects.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
				if err := crds.Delete(context.Background(), "workflows.argoproj.io", metav1.DeleteOptions{}); err != nil {
					t.Error(err)
				}
				for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
					if _, err := crds.Get(context.Background(), "workflows.argoproj.io", metav1.GetOptions{}); apierrors.IsNotFound(err) {
						return
					}
				}
			})
			suspendedAndResumed(t, c)
			if kind == "atomic" {
				t.Run("though the agent of the node and the leader are dead", func(t *testing.T) {
					givenUp(t, &cluster{t: t, config: c.config, admin: c.admin, objects: c.objects})
				})
			}
		})
	}
}

// givenUp has a hold whose agent never releases it, and a Lease whose holder never
// renews it: the machine of both is gone.
func givenUp(t *testing.T, c *cluster) {
	leases := c.admin.CoordinationV1().Leases("spotbench-system")
	lease, err := leases.Get(t.Context(), workflow.LeaseName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	dead, seconds, now := "n9", int32(15), metav1.NowMicro()
	lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds, lease.Spec.AcquireTime, lease.Spec.RenewTime = &dead, &seconds, &now, &now
	if _, err := leases.Update(t.Context(), lease, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	survivor, events := c.keeper("n1")
	running(t, always, survivor)
	c.create("orphan")
	dying, _ := c.keeper("n9")
	start := time.Now()
	if _, err := dying.Suspend(t.Context(), "gpu-workloads", "orphan", notice("n9", "six", 2*time.Second, "p")); err != nil {
		t.Fatal(err)
	}
	deadline := start.Add(time.Minute)
	for c.state("orphan").Suspended && time.Now().Before(deadline) {
		time.Sleep(100 * time.Millisecond)
	}
	// 2 s to the machine's end and 30 s more; the leader looks every 5 s at what is not ripe.
	if took := time.Since(start); took < 32*time.Second || took > 39*time.Second {
		t.Errorf("resumed after %s, want 32 to 39 s", took)
	}
	c.eventually("the event", func() bool {
		return len(said(events, "Warning ResumedAfterInterruption resumed: the agent of n9 has not reported in 30s since its machine's end")) == 1
	})
}

func suspendedAndResumed(t *testing.T, c *cluster) {
	const ns = "gpu-workloads"
	interrupted, _ := c.keeper("n0")
	t.Run("once the hold is released and the pod is gone", func(t *testing.T) {
		c := &cluster{t: t, config: c.config, admin: c.admin, objects: c.objects}
		c.create("plain")
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Labels: map[string]string{"workflows.argoproj.io/workflow": "plain"}},
			Spec: corev1.PodSpec{NodeName: "n0", Containers: []corev1.Container{{Name: "main", Image: "i"}}}}
		if _, err := c.admin.CoreV1().Pods(ns).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		survivor, events := c.keeper("n1")
		running(t, always, survivor)
		if retried, err := interrupted.Suspend(t.Context(), ns, "plain", notice("n0", "one", time.Minute, "p")); err != nil || !slices.Equal(retried, []string{"p"}) {
			t.Fatalf("Suspend = %v, %v", retried, err)
		}
		if s := c.state("plain"); !s.Suspended || !s.Ours || len(s.Others) > 0 || s.Holds["n0"].Notice != "one" {
			t.Fatalf("state %+v", s)
		}
		if held, err := interrupted.Held(t.Context(), "n0", "one"); err != nil || len(held) != 1 {
			t.Errorf("held %v, %v; want the one workflow", held, err)
		}
		if err := interrupted.Release(t.Context(), ns, "plain", "n0", "one", []string{"p"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second) // the leader has looked
		if s := c.state("plain"); !s.Suspended {
			t.Fatal("resumed although the pod is still there")
		}
		zero := int64(0)
		if err := c.admin.CoreV1().Pods(ns).Delete(t.Context(), "p", metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
			t.Fatal(err)
		}
		c.eventually("the workflow to be resumed", func() bool { return !c.state("plain").Suspended })
		s := c.state("plain")
		if s.Ours || len(s.Holds) > 0 {
			t.Errorf("left behind: %+v", s)
		}
		c.eventually("the event", func() bool {
			return len(said(events, "Normal ResumedAfterInterruption resumed: 1 pod has left n0")) == 1
		})
	})
	t.Run("exactly once, by one of three agents that all may", func(t *testing.T) {
		c := &cluster{t: t, config: c.config, admin: c.admin, objects: c.objects}
		var recorders []*record.FakeRecorder
		var keepers []*workflow.Keeper
		for _, node := range []string{"n1", "n2", "n3"} {
			k, events := c.keeper(node)
			keepers, recorders = append(keepers, k), append(recorders, events)
		}
		running(t, always, keepers...)
		const count = 10
		for i := range count {
			name := fmt.Sprintf("many-%d", i)
			c.create(name)
			if _, err := interrupted.Suspend(t.Context(), ns, name, notice("n0", "two", time.Minute, "gone")); err != nil {
				t.Fatal(err)
			}
			if err := interrupted.Release(t.Context(), ns, name, "n0", "two", []string{"gone"}); err != nil {
				t.Fatal(err)
			}
		}
		for i := range count {
			c.eventually("every workflow to be resumed", func() bool { return !c.state(fmt.Sprintf("many-%d", i)).Suspended })
		}
		time.Sleep(2 * time.Second) // time enough for somebody to do it again
		resumed := 0
		for _, events := range recorders {
			resumed += len(said(events, "Normal ResumedAfterInterruption"))
		}
		if resumed != count {
			t.Errorf("%d resumptions of %d workflows", resumed, count)
		}
	})
	t.Run("not by an agent whose own node is taken", func(t *testing.T) {
		c := &cluster{t: t, config: c.config, admin: c.admin, objects: c.objects}
		threatened, events := c.keeper("n1")
		running(t, func() bool { return false }, threatened)
		c.create("nobody")
		if _, err := interrupted.Suspend(t.Context(), ns, "nobody", notice("n0", "three", time.Minute, "gone")); err != nil {
			t.Fatal(err)
		}
		if err := interrupted.Release(t.Context(), ns, "nobody", "n0", "three", nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		if !c.state("nobody").Suspended || len(said(events, "")) > 0 {
			t.Error("resumed")
		}
	})
	t.Run("not where a person suspended it too", func(t *testing.T) {
		c := &cluster{t: t, config: c.config, admin: c.admin, objects: c.objects}
		survivor, events := c.keeper("n2")
		c.create("theirs")
		if _, err := interrupted.Suspend(t.Context(), ns, "theirs", notice("n0", "four", time.Minute, "gone")); err != nil {
			t.Fatal(err)
		}
		// Resumed and suspended again between two looks of the leader.
		c.patch("theirs", "argo", `{"spec":{"suspend":null}}`)
		c.patch("theirs", "argo", `{"spec":{"suspend":true}}`)
		if err := interrupted.Release(t.Context(), ns, "theirs", "n0", "four", nil); err != nil {
			t.Fatal(err)
		}
		running(t, always, survivor)
		c.eventually("our marks to be removed", func() bool { s := c.state("theirs"); return !s.Ours && len(s.Holds) == 0 })
		if !c.state("theirs").Suspended {
			t.Error("a person's suspension was lifted")
		}
		c.eventually("the event", func() bool { return len(said(events, "Normal LeftSuspended argo suspended this workflow too")) == 1 })
	})
	t.Run("an agent may change nothing else", func(t *testing.T) {
		c := &cluster{t: t, config: c.config, admin: c.admin, objects: c.objects}
		c.create("guarded")
		c.create("held")
		c.create("suspended")
		c.patch("suspended", "kubectl", `{"spec":{"suspend":true}}`)
		if _, err := interrupted.Suspend(t.Context(), ns, "held", notice("n0", "five", time.Hour, "p")); err != nil {
			t.Fatal(err)
		}
		for name, tt := range map[string]struct {
			on, patch string
			allowed   bool
		}{
			"suspend without its annotation":        {"guarded", `{"spec":{"suspend":true}}`, false},
			"suspend in another node's name":        {"guarded", `{"metadata":{"labels":{"spotbench.dev/suspended":"interruption"},"annotations":{"interruption.spotbench.dev/n0":"{}"}},"spec":{"suspend":true}}`, false},
			"suspend in its own name":               {"guarded", `{"metadata":{"labels":{"spotbench.dev/suspended":"interruption"},"annotations":{"interruption.spotbench.dev/n1":"{}"}},"spec":{"suspend":true}}`, true},
			"resume what a person suspended":        {"suspended", `{"spec":{"suspend":null}}`, false},
			"resume and leave the marks":            {"held", `{"spec":{"suspend":null}}`, false},
			"resume and take all marks away":        {"held", `{"metadata":{"labels":{"spotbench.dev/suspended":null},"annotations":{"interruption.spotbench.dev/n0":null}},"spec":{"suspend":null}}`, true},
			"release another node's hold":           {"held", `{"metadata":{"annotations":{"interruption.spotbench.dev/n0":"{\"released\":true}"}}}`, false},
			"take one hold away and leave another":  {"held", `{"metadata":{"annotations":{"interruption.spotbench.dev/n0":null,"interruption.spotbench.dev/n1":"{}"}}}`, false},
			"add a hold of its own":                 {"held", `{"metadata":{"annotations":{"interruption.spotbench.dev/n1":"{}"}}}`, true},
			"change the spec":                       {"guarded", `{"spec":{"entrypoint":"evil"}}`, false},
			"add to the spec":                       {"guarded", `{"spec":{"serviceAccountName":"admin"}}`, false},
			"take from the spec":                    {"guarded", `{"spec":{"entrypoint":null}}`, false},
			"change the status":                     {"guarded", `{"status":{"phase":"Succeeded"}}`, false},
			"change a label":                        {"guarded", `{"metadata":{"labels":{"team":"b"}}}`, false},
			"add a label":                           {"guarded", `{"metadata":{"labels":{"workflows.argoproj.io/completed":"true"}}}`, false},
			"take a label away":                     {"guarded", `{"metadata":{"labels":{"team":null}}}`, false},
			"add an annotation of somebody else's":  {"guarded", `{"metadata":{"annotations":{"a":"b"}}}`, false},
			"resume while holding for its own node": {"held", `{"metadata":{"labels":{"spotbench.dev/suspended":null},"annotations":{"interruption.spotbench.dev/n0":null,"interruption.spotbench.dev/n1":"{}"}},"spec":{"suspend":null}}`, false},
		} {
			_, err := c.workflows(c.agent("n1")).Patch(t.Context(), tt.on, types.MergePatchType, []byte(tt.patch), metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
			if (err == nil) != tt.allowed || err != nil && !apierrors.IsForbidden(err) {
				t.Errorf("%s: allowed %t, want %t: %v", name, err == nil, tt.allowed, err)
			}
		}
		if err := c.workflows(c.agent("n1")).Delete(t.Context(), "guarded", metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}); !apierrors.IsForbidden(err) {
			t.Errorf("delete a workflow: %v, want it forbidden", err)
		}
	})
	t.Run("nor hold the Lease in another node's name", func(t *testing.T) {
		for holder, allowed := range map[string]bool{"n1": true, "n2": false, "": true} {
			client := kubernetes.NewForConfigOrDie(c.agent("n1"))
			lease, err := client.CoordinationV1().Leases("spotbench-system").Get(t.Context(), workflow.LeaseName, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			lease.Spec.HolderIdentity = &holder
			_, err = client.CoordinationV1().Leases("spotbench-system").Update(t.Context(), lease, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
			if (err == nil) != allowed {
				t.Errorf("holder %q: %v, want allowed %t", holder, err, allowed)
			}
		}
	})
}
