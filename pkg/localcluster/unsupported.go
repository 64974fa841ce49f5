// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package localcluster

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/spotbench/spotbench/pkg/localcluster/machine"
	"github.com/spotbench/spotbench/pkg/localcluster/shape"
)

var errUnsupported = errors.New("a local cluster needs Linux, for namespaces and cgroups; use kind (https://kind.sigs.k8s.io) and apply the manifests there")

// Check says in one sentence why a cluster cannot run here.
func Check() error { return errUnsupported }

// Build cannot work here.
func Build(context.Context, Options) error { return errUnsupported }

// Up cannot work here.
func Up(context.Context, Options) (*Cluster, error) { return nil, errUnsupported }

// Open cannot work here.
func Open(string) (*Cluster, error) { return nil, errUnsupported }

// Down cannot work here.
func Down(string, io.Writer) error { return errUnsupported }

// Cluster never exists here; its methods let programs compile.
type Cluster struct{}

// NodeInfo describes a real node.
type NodeInfo struct {
	shape.Machine
	IP       netip.Addr
	PodCIDR  netip.Prefix
	PID      int
	GPUUUIDs []string
	Services []machine.ServiceStatus
}

// Name of the cluster.
func (*Cluster) Name() string { return "" }

// Kubeconfig has no path here.
func (*Cluster) Kubeconfig() string { return "" }

// Kubectl cannot work here.
func (*Cluster) Kubectl() (string, error) { return "", errUnsupported }

// Client does not exist here.
func (*Cluster) Client() kubernetes.Interface { return nil }

// RESTConfig does not exist here.
func (*Cluster) RESTConfig() *rest.Config { return nil }

// HostIP does not exist here.
func (*Cluster) HostIP() netip.Addr { return netip.Addr{} }

// Shape does not exist here.
func (*Cluster) Shape() shape.Shape { return shape.Shape{} }

// Nodes cannot work here.
func (*Cluster) Nodes(context.Context) ([]NodeInfo, error) { return nil, errUnsupported }

// Notice cannot work here.
func (*Cluster) Notice(context.Context, string, time.Time, string) error { return errUnsupported }

// Rebalance cannot work here.
func (*Cluster) Rebalance(context.Context, string) error { return errUnsupported }

// Withdraw cannot work here.
func (*Cluster) Withdraw(context.Context, string) error { return errUnsupported }

// Reclaim cannot work here.
func (*Cluster) Reclaim(context.Context, string) error { return errUnsupported }

// Replace cannot work here.
func (*Cluster) Replace(context.Context, string) error { return errUnsupported }

// Partition cannot work here.
func (*Cluster) Partition(context.Context, string) error { return errUnsupported }

// Heal cannot work here.
func (*Cluster) Heal(context.Context, string) error { return errUnsupported }

// SetGPUHealth cannot work here.
func (*Cluster) SetGPUHealth(context.Context, string, int, bool) error { return errUnsupported }

// Exec cannot work here.
func (*Cluster) Exec(context.Context, string, ...string) ([]byte, error) { return nil, errUnsupported }

// LoadImages cannot work here.
func (*Cluster) LoadImages(context.Context, ...string) error { return errUnsupported }

// LoadImagesTo cannot work here.
func (*Cluster) LoadImagesTo(context.Context, []string, ...string) error { return errUnsupported }

// Logs cannot work here.
func (*Cluster) Logs(string, string) (io.ReadCloser, error) { return nil, errUnsupported }

// Down cannot work here.
func (*Cluster) Down(context.Context) error { return errUnsupported }
