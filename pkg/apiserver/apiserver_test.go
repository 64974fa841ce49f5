// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"

	"github.com/spotbench/spotbench/pkg/apiserver"
	"github.com/spotbench/spotbench/pkg/localcluster/apiservertest"
)

// start skips the test where the programs of the local cluster are not built
// (`localcluster build`).
func start(t *testing.T) (*apiserver.Client, kubernetes.Interface) {
	t.Helper()
	config := apiservertest.Start(t)
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = 50, 100
	c, err := apiserver.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return c, kubernetes.NewForConfigOrDie(config)
}

// Each thing that the agent asks for does at a real API server what the generated
// clientset, which looks on, says it does.
func TestWhatTheAgentAsksForIsWhatTheAPIServerDoes(t *testing.T) {
	c, all := start(t)
	ctx := t.Context()
	if _, err := all.CoreV1().ServiceAccounts("default").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	if _, err := all.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod := func(name string) *corev1.Pod {
		t.Helper()
		made, err := all.CoreV1().Pods("default").Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}},
			Spec: corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "c", Image: "example.com/c"}}}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	first := pod("first")

	t.Run("nodes", func(t *testing.T) {
		if _, err := c.Nodes().Patch(ctx, "n1", types.MergePatchType, []byte(`{"spec":{"taints":[{"key":"k","effect":"NoSchedule"}]}}`), metav1.PatchOptions{}); err != nil {
			t.Error(err)
		}
		if _, err := c.Nodes().Patch(ctx, "n1", types.StrategicMergePatchType, []byte(`{"status":{"conditions":[{"type":"SpotInterruption","status":"True"}]}}`), metav1.PatchOptions{}, "status"); err != nil {
			t.Error(err)
		}
		n, err := c.Nodes().Get(ctx, "n1", metav1.GetOptions{})
		if err != nil || len(n.Spec.Taints) == 0 || len(n.Status.Conditions) != 1 {
			t.Errorf("%+v, %v", n, err)
		}
		if _, err := c.Nodes().Get(ctx, "n2", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("a node that is not there: %v", err)
		}
	})
	t.Run("pods", func(t *testing.T) {
		list, err := c.Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=n1"})
		if err != nil || len(list.Items) != 1 || list.Items[0].UID != first.UID {
			t.Fatalf("%+v, %v", list, err)
		}
		if none, err := c.Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=n2"}); err != nil || len(none.Items) != 0 {
			t.Errorf("%+v, %v", none, err)
		}
		w, err := c.Pods("").Watch(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=n1", ResourceVersion: list.ResourceVersion})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Stop()
		if _, err := c.Pods("default").Patch(ctx, "first", types.StrategicMergePatchType, []byte(`{"status":{"conditions":[{"type":"DisruptionTarget","status":"True"}]}}`), metav1.PatchOptions{}, "status"); err != nil {
			t.Error(err)
		}
		select {
		case e := <-w.ResultChan():
			if p, ok := e.Object.(*corev1.Pod); !ok || p.UID != first.UID || len(p.Status.Conditions) != 1 {
				t.Errorf("heard %+v", e)
			}
		case <-time.After(10 * time.Second):
			t.Error("the watch says nothing")
		}
		none := int64(0)
		if err := c.Pods("default").Delete(ctx, "first", metav1.DeleteOptions{GracePeriodSeconds: &none}); err != nil {
			t.Error(err)
		}
		if _, err := c.Pods("default").Get(ctx, "first", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("a pod that was deleted: %v", err)
		}
	})
	t.Run("evictions, which a disruption budget refuses", func(t *testing.T) {
		pod("guarded")
		whole := intstr.FromInt32(0)
		if _, err := all.PolicyV1().PodDisruptionBudgets("default").Create(ctx, &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "b"},
			Spec: policyv1.PodDisruptionBudgetSpec{MaxUnavailable: &whole, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "guarded"}}}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := all.CoreV1().Pods("default").Patch(ctx, "guarded", types.MergePatchType, []byte(`{"status":{"phase":"Running"}}`), metav1.PatchOptions{}, "status"); err != nil {
			t.Fatal(err)
		}
		eviction := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "guarded"}}
		// Nobody has looked at the budget yet, so the answer names a pause of 10 s.
		asked := time.Now()
		if err := c.Evict(ctx, eviction); !apierrors.IsTooManyRequests(err) || time.Since(asked) > 5*time.Second {
			t.Errorf("a pod behind a budget: %v after %s", err, time.Since(asked))
		}
		if err := all.PolicyV1().PodDisruptionBudgets("default").Delete(ctx, "b", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
			err := c.Evict(ctx, eviction)
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
		if p, err := all.CoreV1().Pods("default").Get(ctx, "guarded", metav1.GetOptions{}); err == nil && p.DeletionTimestamp == nil {
			t.Error("the pod is not being deleted")
		}
	})
	t.Run("leases, whose older version is refused", func(t *testing.T) {
		holder := "n1"
		made, err := c.Leases("default").Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "l"}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		taken := made.DeepCopy()
		taken.Spec.HolderIdentity = &holder
		if _, err := c.Leases("default").Update(ctx, taken, metav1.UpdateOptions{}); err != nil {
			t.Error(err)
		}
		if _, err := c.Leases("default").Update(ctx, made, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
			t.Errorf("a version that was replaced: %v", err)
		}
		if l, err := c.Leases("default").Get(ctx, "l", metav1.GetOptions{}); err != nil || *l.Spec.HolderIdentity != holder {
			t.Errorf("%+v, %v", l, err)
		}
	})
	t.Run("events, the repeated ones counted", func(t *testing.T) {
		broadcaster := record.NewBroadcaster()
		broadcaster.StartRecordingToSink(c.Events())
		defer broadcaster.Shutdown()
		recorder := broadcaster.NewRecorder(apiserver.Scheme, corev1.EventSource{Component: "test"})
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
		for range 3 {
			recorder.Event(node, corev1.EventTypeNormal, "Said", "again")
		}
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			list, err := all.CoreV1().Events("default").List(ctx, metav1.ListOptions{FieldSelector: "reason=Said"})
			if err == nil && len(list.Items) == 1 && list.Items[0].Count == 3 && list.Items[0].InvolvedObject.Kind == "Node" {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%+v, %v", list, err)
			}
		}
	})
	t.Run("what is served", func(t *testing.T) {
		if err := c.Serves(ctx, schema.GroupVersion{Group: "coordination.k8s.io", Version: "v1"}); err != nil {
			t.Error(err)
		}
		if err := c.Serves(ctx, schema.GroupVersion{Group: "argoproj.io", Version: "v1alpha1"}); !apierrors.IsNotFound(err) {
			t.Errorf("a group that is not there: %v", err)
		}
	})
}
