// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults_test

import (
	"fmt"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/spotbench/spotbench/pkg/demo"
)

// TestACheckpointIsOfItsNamespaceAlone has a pod of another namespace name a run that is
// not its own in every way that it can.
func TestACheckpointIsOfItsNamespaceAlone(t *testing.T) {
	t.Parallel()
	const neighbour = "neighbour"
	if err := demo.EnsureNamespace(t.Context(), stage.Client, neighbour); err != nil {
		t.Fatal(err)
	}
	node := pool.borrow(t, 1)[0]
	owner := start(t, node, job{name: "private", interval: "2s", steps: 300})
	owner.awaitGeneration(nil)
	for i, claimed := range []string{"private", "gpu-workloads/private", "../gpu-workloads/private", "/gpu-workloads/private"} {
		name := fmt.Sprintf("claims-%d", i)
		template := job{name: name, steps: 20, grace: 1, interval: "10m"}.object().Spec.Template
		template.Annotations["spotbench.dev/run"] = claimed
		template.Spec.NodeSelector, template.Spec.NodeName = nil, node
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: neighbour, Name: name, Annotations: template.Annotations}, Spec: template.Spec}
		if _, err := stage.Client.CoreV1().Pods(neighbour).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
			continue // the admission policy refuses such a name: better still
		}
		t.Cleanup(func() {
			none := int64(0)
			if err := stage.Client.CoreV1().Pods(neighbour).Delete(cleanupContext(t), name, metav1.DeleteOptions{GracePeriodSeconds: &none}); err != nil {
				t.Error(err)
			}
		})
		eventually(t, time.Minute, name+" to begin", func() bool { return len(steps.of(name)) > 0 })
		if did := steps.of(name)[0]; did.after != 0 {
			t.Errorf("a pod of %s that claims run %q went on after step %d of another namespace's run", neighbour, claimed, did.after)
		}
	}
	// The owner still writes its run: nobody has taken it over.
	before, _, err := checkpoints(t).Latest(t.Context(), owner.key)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "the owner's next checkpoint", func() bool {
		latest, _, err := checkpoints(t).Latest(t.Context(), owner.key)
		return err == nil && latest.Number > before.Number && latest.Meta["pod"] == before.Meta["pod"]
	})
	t.Run("and the store's credentials are for no workload", func(t *testing.T) {
		for _, namespace := range []string{workloads, neighbour} {
			review, err := stage.Client.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
				User: "system:serviceaccount:" + namespace + ":default", Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"},
				ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: "spotbench-system", Verb: "get", Resource: "secrets", Name: "node-agent-store"}}}, metav1.CreateOptions{})
			if err != nil || review.Status.Allowed {
				t.Errorf("%s may read them: %+v, %v", namespace, review.Status, err)
			}
		}
	})
}
