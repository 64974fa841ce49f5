// SPDX-License-Identifier: Apache-2.0

package localcluster

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/spotbench/spotbench/pkg/localcluster/network"
	"github.com/spotbench/spotbench/pkg/localcluster/node"
	"github.com/spotbench/spotbench/pkg/localcluster/shape"
)

const (
	dnsUser  = "system:coredns"
	kwokUser = "kwok"
	// pollInterval is the pause between looks at something that is about to happen.
	pollInterval = 100 * time.Millisecond
)

func newClient(kubeconfig string) (kubernetes.Interface, *rest.Config, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, nil, fmt.Errorf("read the kubeconfig: %w", err)
	}
	// Nothing is asked for more often than this machine can answer, and a limit of the
	// client's own would hold up one node's start by another's.
	cfg.QPS = -1
	typed := rest.CopyConfig(cfg)
	typed.ContentType, typed.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
	client, err := kubernetes.NewForConfig(typed)
	if err != nil {
		return nil, nil, fmt.Errorf("make the cluster's client: %w", err)
	}
	return client, cfg, nil
}

// waitFor polls until done says so. last describes what was missing when the
// context ends.
func waitFor(ctx context.Context, what string, done func(context.Context) (bool, error)) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		ok, err := done(ctx)
		if err == nil && ok {
			return nil
		}
		select {
		case <-ctx.Done():
			if err != nil {
				return fmt.Errorf("%s: %w; last: %w", what, ctx.Err(), err)
			}
			return fmt.Errorf("%s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
}

func waitForAPIServer(ctx context.Context, client kubernetes.Interface) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	return waitFor(ctx, "the API server does not become ready", func(ctx context.Context) (bool, error) {
		body, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return string(body) == "ok", err
	})
}

// createNode tells the API server about a node before its kubelet does: labels
// and taints that a kubelet may not give itself (NodeRestriction) are the cloud's
// and GPU Feature Discovery's.
func createNode(ctx context.Context, client kubernetes.Interface, s *state, index int) error {
	m := s.Shape.Nodes[index].Machine
	podCIDR := s.Plan.PodCIDR(index).String()
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: m.Name, Labels: s.Shape.NodeLabels(m)},
		Spec: corev1.NodeSpec{
			ProviderID: m.ProviderID(s.Name), Taints: m.NodeTaints(), PodCIDR: podCIDR, PodCIDRs: []string{podCIDR},
		},
	}
	if _, err := client.CoreV1().Nodes().Create(ctx, n, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create the node %s: %w", m.Name, err)
	}
	return nil
}

// createAddons makes the objects that the cluster's own parts need: cluster
// DNS's Service and rights. kube-proxy's come with the API server.
func createAddons(ctx context.Context, client kubernetes.Interface, plan network.Plan) error {
	const name = "kube-dns"
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: metav1.NamespaceSystem},
		Spec: corev1.ServiceSpec{
			ClusterIP: plan.DNSServiceIP().String(),
			Ports: []corev1.ServicePort{
				{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP},
				{Name: "dns-tcp", Port: 53, Protocol: corev1.ProtocolTCP},
			},
		},
	}
	udp, tcp, port, ready := corev1.ProtocolUDP, corev1.ProtocolTCP, int32(53), true
	dns, dnsTCP := "dns", "dns-tcp"
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: name, Namespace: metav1.NamespaceSystem, Labels: map[string]string{discoveryv1.LabelServiceName: name}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{plan.HostIP().String()}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
		Ports:       []discoveryv1.EndpointPort{{Name: &dns, Port: &port, Protocol: &udp}, {Name: &dnsTCP, Port: &port, Protocol: &tcp}},
	}
	role := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: dnsUser},
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"endpoints", "services", "pods", "namespaces"}, Verbs: []string{"list", "watch"}},
			{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: []string{"list", "watch"}},
		},
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: dnsUser},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: dnsUser},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: dnsUser}},
	}
	create := metav1.CreateOptions{}
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"service", func() error {
			_, err := client.CoreV1().Services(metav1.NamespaceSystem).Create(ctx, service, create)
			return err
		}},
		{"endpoints", func() error {
			_, err := client.DiscoveryV1().EndpointSlices(metav1.NamespaceSystem).Create(ctx, slice, create)
			return err
		}},
		{"role", func() error { _, err := client.RbacV1().ClusterRoles().Create(ctx, role, create); return err }},
		{"role binding", func() error { _, err := client.RbacV1().ClusterRoleBindings().Create(ctx, binding, create); return err }},
	} {
		if err := step.do(); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create the %s of cluster DNS: %w", step.what, err)
		}
	}
	return nil
}

// allowNetworkPolicies gives the nodes' policy engine its rights: it reads, and writes
// nothing.
func allowNetworkPolicies(ctx context.Context, client kubernetes.Interface) error {
	read := []string{"get", "list", "watch"}
	role := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: node.NetworkPolicyUser},
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"namespaces", "pods", "services", "nodes", "endpoints"}, Verbs: read},
			{APIGroups: []string{"networking.k8s.io"}, Resources: []string{"networkpolicies"}, Verbs: read},
			{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: read},
		},
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: node.NetworkPolicyUser},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: node.NetworkPolicyUser},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: node.NetworkPolicyUser}},
	}
	if _, err := client.RbacV1().ClusterRoles().Create(ctx, role, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create the role of the policy engine: %w", err)
	}
	if _, err := client.RbacV1().ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create the role binding of the policy engine: %w", err)
	}
	return nil
}

// waitForNode waits until a node is Ready, offers its GPUs, and takes pods: the
// taint of a node that is not ready goes a moment later.
func waitForNode(ctx context.Context, client kubernetes.Interface, m shape.Machine) error {
	return waitFor(ctx, "node "+m.Name+" does not become Ready with its GPUs", func(ctx context.Context) (bool, error) {
		n, err := client.CoreV1().Nodes().Get(ctx, m.Name, metav1.GetOptions{})
		if err != nil {
			return false, fmt.Errorf("read the node: %w", err)
		}
		gpus := n.Status.Allocatable[shape.ResourceGPU]
		for _, t := range n.Spec.Taints {
			if t.Key == corev1.TaintNodeNotReady {
				return false, nil
			}
		}
		return ready(n) && (m.GPU == nil || gpus.Value() == int64(m.GPU.Count)), nil
	})
}

func ready(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func deleteNode(ctx context.Context, client kubernetes.Interface, name string) error {
	if err := client.CoreV1().Nodes().Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete the node %s: %w", name, err)
	}
	return nil
}
