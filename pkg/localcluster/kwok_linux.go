// SPDX-License-Identifier: Apache-2.0

package localcluster

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"

	"golang.org/x/sync/errgroup"

	"github.com/spotbench/spotbench/pkg/localcluster/node"
	"github.com/spotbench/spotbench/pkg/localcluster/toolchain"
)

// kwokAnnotation marks the nodes that kwok plays, for kwok; kwokLabel for people.
const (
	kwokAnnotation = "kwok.x-k8s.io/node"
	kwokLabel      = "type=kwok"
)

// manyNodes is how many simulated nodes are too many for each to renew its lease as
// often as NodeMonitorGracePeriod asks for: above, losses are noticed later.
const manyNodes = 500

// gracePeriod is how long after a node's last sign of life it is NotReady. Leases of
// thousands of nodes keep the API server busy with nothing else, so with many nodes
// they are renewed every 30 s: 167 requests a second for 5,000.
func gracePeriod(kwokNodes int) time.Duration {
	if kwokNodes > manyNodes {
		return time.Minute
	}
	return node.NodeMonitorGracePeriod
}

// kwokArgs is kwok's command line. Without stages of ours it uses its own fast ones:
// nodes are Ready and pods Running, or complete, at once.
func kwokArgs(s *state, tools *toolchain.Set) []string {
	// kwok renews after a quarter of it, half the grace period: one may be lost.
	lease := 2 * gracePeriod(s.Shape.KwokNodes())
	return []string{tools.Path(toolchain.Kwok),
		"--config=" + paths{s.Name}.run("kwok.yaml"),
		"--kubeconfig=" + paths{s.Name}.pki("kwok.conf"),
		"--manage-all-nodes=false", "--manage-nodes-with-annotation-selector=" + kwokAnnotation + "=fake",
		"--node-lease-duration-seconds=" + strconv.Itoa(int(lease.Seconds())),
		"--server-address=" + net.JoinHostPort(s.Plan.Loopback().String(), "10247"),
		"--cidr=100.64.0.1/10", // addresses of simulated pods; nobody can reach them
	}
}

// kwokConfig has what kwok takes no flags for: how many nodes, leases and pods it
// plays at a time. Its own 4 wait for the API server most of the time.
const kwokConfig = `apiVersion: config.kwok.x-k8s.io/v1alpha1
kind: KwokConfiguration
options:
  nodePlayStageParallelism: 16
  nodeLeaseParallelism: 16
  podPlayStageParallelism: 16
`

// createKwokNodes makes the simulated nodes of every group.
func createKwokNodes(ctx context.Context, client kubernetes.Interface, s *state) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for _, g := range s.Shape.Kwok {
		capacity := corev1.ResourceList{}
		for k, v := range node.Capacity(g) {
			q, err := resource.ParseQuantity(v)
			if err != nil {
				return fmt.Errorf("kwok group %s: capacity %s: %w", g.Name, k, err)
			}
			capacity[k] = q
		}
		for i := range g.Count {
			m := g.Machine
			m.Name = fmt.Sprintf("%s-%d", g.Name, i)
			tags := s.Shape.NodeLabels(m)
			tags["type"] = "kwok"
			n := &corev1.Node{
				ObjectMeta: metav1.ObjectMeta{Name: m.Name, Labels: tags, Annotations: map[string]string{kwokAnnotation: "fake", "node.alpha.kubernetes.io/ttl": "0"}},
				Spec:       corev1.NodeSpec{ProviderID: m.ProviderID(s.Name), Taints: m.NodeTaints()},
				Status:     corev1.NodeStatus{Capacity: capacity, Allocatable: capacity},
			}
			group.Go(func() error {
				if _, err := client.CoreV1().Nodes().Create(ctx, n, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
					return fmt.Errorf("create the simulated node %s: %w", n.Name, err)
				}
				return nil
			})
		}
	}
	return group.Wait()
}

// waitForKwok waits until every simulated node is Ready, and says now and then how
// many are.
func waitForKwok(ctx context.Context, client kubernetes.Interface, want int, say toolchain.Progress) error {
	// Watched, not listed again and again: thousands of nodes are megabytes.
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = kwokLabel }))
	nodes := factory.Core().V1().Nodes()
	informer := nodes.Informer()
	if err := informer.SetTransform(onlyReadiness); err != nil {
		return fmt.Errorf("watch the simulated nodes: %w", err)
	}
	stop := make(chan struct{})
	defer factory.Shutdown()
	defer close(stop)
	factory.Start(stop)
	said := time.Now()
	return waitFor(ctx, fmt.Sprintf("the %d simulated nodes do not all become Ready", want), func(context.Context) (bool, error) {
		list, err := nodes.Lister().List(labels.Everything())
		if err != nil {
			return false, fmt.Errorf("list the simulated nodes: %w", err)
		}
		count := 0
		for _, n := range list {
			if ready(n) && !slices.ContainsFunc(n.Spec.Taints, notReady) {
				count++
			}
		}
		if count == want {
			return true, nil
		}
		if time.Since(said) > sayEvery {
			said = time.Now()
			say("%d of %d simulated nodes Ready", count, want)
		}
		return false, fmt.Errorf("%d are", count)
	})
}

// sayEvery is the time between two lines of progress.
const sayEvery = 10 * time.Second

// onlyReadiness keeps of a node what says whether it is Ready.
func onlyReadiness(object any) (any, error) {
	n, ok := object.(*corev1.Node)
	if !ok {
		return object, nil
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: n.Name, ResourceVersion: n.ResourceVersion},
		Spec:       corev1.NodeSpec{Taints: n.Spec.Taints},
		Status:     corev1.NodeStatus{Conditions: n.Status.Conditions},
	}, nil
}

// notReady is the taint that a new node has until the controller-manager has seen that
// it is Ready: schedulers pass it by.
func notReady(t corev1.Taint) bool { return t.Key == corev1.TaintNodeNotReady }
