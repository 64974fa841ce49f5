// SPDX-License-Identifier: Apache-2.0

package localcluster

import (
	"context"
	"fmt"
	"net"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"golang.org/x/sync/errgroup"

	"github.com/spotbench/spotbench/pkg/localcluster/node"
	"github.com/spotbench/spotbench/pkg/localcluster/toolchain"
)

// kwokAnnotation marks the nodes that kwok plays.
const kwokAnnotation = "kwok.x-k8s.io/node"

// kwokArgs is kwok's command line. Without a configuration it uses its own fast
// stages: nodes are Ready and pods Running, or complete, at once.
func kwokArgs(s *state, tools *toolchain.Set) []string {
	return []string{tools.Path(toolchain.Kwok),
		"--kubeconfig=" + paths{s.Name}.pki("kwok.conf"),
		"--manage-all-nodes=false", "--manage-nodes-with-annotation-selector=" + kwokAnnotation + "=fake",
		"--node-lease-duration-seconds=40",
		"--server-address=" + net.JoinHostPort(s.Plan.Loopback().String(), "10247"),
		"--cidr=100.64.0.1/10", // addresses of simulated pods; nobody can reach them
	}
}

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
			labels := s.Shape.NodeLabels(m)
			labels["type"] = "kwok"
			n := &corev1.Node{
				ObjectMeta: metav1.ObjectMeta{Name: m.Name, Labels: labels, Annotations: map[string]string{kwokAnnotation: "fake", "node.alpha.kubernetes.io/ttl": "0"}},
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

// waitForKwok waits until every simulated node is Ready.
func waitForKwok(ctx context.Context, client kubernetes.Interface, want int) error {
	return waitFor(ctx, fmt.Sprintf("the %d simulated nodes do not all become Ready", want), func(ctx context.Context) (bool, error) {
		list, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: "type=kwok", ResourceVersion: "0"})
		if err != nil {
			return false, fmt.Errorf("list the simulated nodes: %w", err)
		}
		count := 0
		for i := range list.Items {
			if ready(&list.Items[i]) {
				count++
			}
		}
		return count == want, nil
	})
}
