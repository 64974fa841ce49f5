// SPDX-License-Identifier: Apache-2.0

// Package apiserver is the part of the Kubernetes API that the node agent uses. The
// generated clientset knows every kind of every group, and a program that imports it holds
// them all: a quarter of the memory that the agent may take of its node.
package apiserver

import (
	"context"
	"fmt"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/gentype"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/flowcontrol"
)

// Scheme has the kinds that are used here.
var Scheme = func() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, policyv1.AddToScheme, coordinationv1.AddToScheme} {
		if err := add(s); err != nil {
			panic(err) // two kinds of one name
		}
	}
	metav1.AddToGroupVersion(s, schema.GroupVersion{Version: "v1"})
	return s
}()

// What the agent does with objects; the generated clients can do it, too.
type (
	// Nodes are read and patched.
	Nodes interface {
		Get(ctx context.Context, name string, o metav1.GetOptions) (*corev1.Node, error)
		Patch(ctx context.Context, name string, form types.PatchType, data []byte, o metav1.PatchOptions, subresources ...string) (*corev1.Node, error)
	}
	// Pods are watched, patched and deleted.
	Pods interface {
		Get(ctx context.Context, name string, o metav1.GetOptions) (*corev1.Pod, error)
		List(ctx context.Context, o metav1.ListOptions) (*corev1.PodList, error)
		Watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error)
		Patch(ctx context.Context, name string, form types.PatchType, data []byte, o metav1.PatchOptions, subresources ...string) (*corev1.Pod, error)
		Delete(ctx context.Context, name string, o metav1.DeleteOptions) error
	}
	// Leases are made and kept.
	Leases interface {
		Get(ctx context.Context, name string, o metav1.GetOptions) (*coordinationv1.Lease, error)
		Create(ctx context.Context, lease *coordinationv1.Lease, o metav1.CreateOptions) (*coordinationv1.Lease, error)
		Update(ctx context.Context, lease *coordinationv1.Lease, o metav1.UpdateOptions) (*coordinationv1.Lease, error)
	}
)

// Client reaches the API server.
type Client struct {
	core, coordination rest.Interface
	parameters         runtime.ParameterCodec
}

// New makes a client. Nothing is asked of the API server yet.
func New(config *rest.Config) (*Client, error) {
	config = rest.CopyConfig(config)
	if config.RateLimiter == nil && config.QPS > 0 { // one for all groups
		config.RateLimiter = flowcontrol.NewTokenBucketRateLimiter(config.QPS, config.Burst)
	}
	connections, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	codecs := serializer.NewCodecFactory(Scheme)
	group := func(version schema.GroupVersion, path string) (rest.Interface, error) {
		c := rest.CopyConfig(config)
		c.GroupVersion, c.APIPath, c.NegotiatedSerializer = &version, path, codecs.WithoutConversion()
		c.AcceptContentTypes, c.ContentType = runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON, runtime.ContentTypeProtobuf
		return rest.RESTClientForConfigAndClient(c, connections)
	}
	core, err := group(corev1.SchemeGroupVersion, "/api")
	if err != nil {
		return nil, err
	}
	coordination, err := group(coordinationv1.SchemeGroupVersion, "/apis")
	if err != nil {
		return nil, err
	}
	return &Client{core, coordination, runtime.NewParameterCodec(Scheme)}, nil
}

// Nodes are all nodes.
func (c *Client) Nodes() Nodes {
	return gentype.NewClient("nodes", c.core, c.parameters, "", func() *corev1.Node { return &corev1.Node{} })
}

// Pods are those of a namespace, or all.
func (c *Client) Pods(namespace string) Pods {
	return gentype.NewClientWithList("pods", c.core, c.parameters, namespace,
		func() *corev1.Pod { return &corev1.Pod{} }, func() *corev1.PodList { return &corev1.PodList{} })
}

// Leases are those of a namespace.
func (c *Client) Leases(namespace string) Leases {
	return gentype.NewClient("leases", c.coordination, c.parameters, namespace, func() *coordinationv1.Lease { return &coordinationv1.Lease{} })
}

// Evict asks for the eviction of a pod, once: an answer of 429 may name a pause of 10 s, which
// is the client's own to make otherwise, up to ten times.
func (c *Client) Evict(ctx context.Context, e *policyv1.Eviction) error {
	return c.core.Post().MaxRetries(0).Namespace(e.Namespace).Resource("pods").Name(e.Name).SubResource("eviction").Body(e).Do(ctx).Error()
}

// Serves is nil if the API server has the group and version.
func (c *Client) Serves(ctx context.Context, version schema.GroupVersion) error {
	if err := c.core.Get().AbsPath("/apis", version.Group, version.Version).Do(ctx).Error(); err != nil {
		return fmt.Errorf("look for %s: %w", version, err)
	}
	return nil
}

// Events takes what a recorder has to say.
func (c *Client) Events() record.EventSink { return events{c} }

type events struct{ *Client }

func (e events) of(namespace string) *gentype.Client[*corev1.Event] {
	return gentype.NewClient("events", e.core, e.parameters, namespace, func() *corev1.Event { return &corev1.Event{} })
}

func (e events) Create(event *corev1.Event) (*corev1.Event, error) {
	return e.of(event.Namespace).Create(context.Background(), event, metav1.CreateOptions{})
}

func (e events) Update(event *corev1.Event) (*corev1.Event, error) {
	return e.of(event.Namespace).Update(context.Background(), event, metav1.UpdateOptions{})
}

func (e events) Patch(event *corev1.Event, data []byte) (*corev1.Event, error) {
	return e.of(event.Namespace).Patch(context.Background(), event.Name, types.StrategicMergePatchType, data, metav1.PatchOptions{})
}
