// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"

	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/client-go/kubernetes/fake"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"

	"github.com/spotbench/spotbench/pkg/apiserver"
)

// FakeCluster is client-go's fake of an API server.
type FakeCluster struct{ *fake.Clientset }

func (f FakeCluster) Nodes() apiserver.Nodes { return f.CoreV1().Nodes() }

func (f FakeCluster) Pods(namespace string) apiserver.Pods { return f.CoreV1().Pods(namespace) }

func (f FakeCluster) Evict(ctx context.Context, e *policyv1.Eviction) error {
	return f.PolicyV1().Evictions(e.Namespace).Evict(ctx, e)
}

func (f FakeCluster) Events() record.EventSink {
	return &typedcorev1.EventSinkImpl{Interface: f.CoreV1().Events("")}
}
