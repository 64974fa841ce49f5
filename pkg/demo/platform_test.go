// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestARolloutIsDoneWhenTheNewPodsAreReadyAndTheOldOnesGone(t *testing.T) {
	two := int32(2)
	meta := metav1.ObjectMeta{Generation: 7}
	deployment := func(status appsv1.DeploymentStatus) bool {
		return deploymentReady(&appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{Replicas: &two}, Status: status})
	}
	statefulSet := func(status appsv1.StatefulSetStatus) bool {
		return statefulSetReady(&appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{Replicas: &two}, Status: status})
	}
	daemonSet := func(status appsv1.DaemonSetStatus) bool {
		return daemonSetReady(&appsv1.DaemonSet{ObjectMeta: meta, Status: status})
	}
	for name, tt := range map[string]struct{ got, want bool }{
		"two new pods and no others":                              {deployment(appsv1.DeploymentStatus{ObservedGeneration: 7, Replicas: 2, UpdatedReplicas: 2, AvailableReplicas: 2}), true},
		"two new pods are ready, and an old one still is":         {deployment(appsv1.DeploymentStatus{ObservedGeneration: 7, Replicas: 3, UpdatedReplicas: 2, AvailableReplicas: 2}), false},
		"a new pod is not ready":                                  {deployment(appsv1.DeploymentStatus{ObservedGeneration: 7, Replicas: 2, UpdatedReplicas: 2, AvailableReplicas: 1}), false},
		"the status is of before the change":                      {deployment(appsv1.DeploymentStatus{ObservedGeneration: 6, Replicas: 2, UpdatedReplicas: 2, AvailableReplicas: 2}), false},
		"a set's two new pods":                                    {statefulSet(appsv1.StatefulSetStatus{ObservedGeneration: 7, UpdatedReplicas: 2, AvailableReplicas: 2}), true},
		"of a set's two pods one is old":                          {statefulSet(appsv1.StatefulSetStatus{ObservedGeneration: 7, UpdatedReplicas: 1, AvailableReplicas: 2}), false},
		"every node has its new pod":                              {daemonSet(appsv1.DaemonSetStatus{ObservedGeneration: 7, DesiredNumberScheduled: 4, UpdatedNumberScheduled: 4, NumberAvailable: 4}), true},
		"every node has a pod, and some have that of before":      {daemonSet(appsv1.DaemonSetStatus{ObservedGeneration: 7, DesiredNumberScheduled: 4, UpdatedNumberScheduled: 1, NumberAvailable: 4}), false},
		"the daemon set has not been told that there are nodes":   {daemonSet(appsv1.DaemonSetStatus{ObservedGeneration: 7}), false},
		"the new pod of one node is not ready for the first time": {daemonSet(appsv1.DaemonSetStatus{ObservedGeneration: 7, DesiredNumberScheduled: 4, UpdatedNumberScheduled: 4, NumberAvailable: 3}), false},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: done is %v, want %v", name, tt.got, tt.want)
		}
	}
}
