// SPDX-License-Identifier: Apache-2.0

package localcluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/spotbench/spotbench/pkg/images"
	"github.com/spotbench/spotbench/pkg/localcluster/machine"
	"github.com/spotbench/spotbench/pkg/localcluster/network"
	"github.com/spotbench/spotbench/pkg/localcluster/node"
	"github.com/spotbench/spotbench/pkg/localcluster/shape"
	"github.com/spotbench/spotbench/pkg/localcluster/toolchain"
)

// Cluster is a cluster that is up.
type Cluster struct {
	state      *state
	paths      paths
	tools      *toolchain.Set
	client     kubernetes.Interface
	restConfig *rest.Config
}

// Open finds a cluster that is up. The error is ErrNotUp if there is none.
func Open(name string) (*Cluster, error) {
	if name == "" {
		name = DefaultName
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	s, err := load(name)
	if err != nil {
		return nil, err
	}
	if s == nil || !s.Complete {
		return nil, fmt.Errorf("cluster %s: %w", name, ErrNotUp)
	}
	running, err := machine.Find(name)
	if err != nil {
		return nil, err
	}
	if running[controlPlane] == 0 {
		return nil, fmt.Errorf("cluster %s: %w: its control plane does not run", name, ErrNotUp)
	}
	c := &Cluster{state: s, paths: paths{name}}
	if c.client, c.restConfig, err = newClient(c.paths.kubeconfig()); err != nil {
		return nil, err
	}
	return c, nil
}

// Name of the cluster.
func (c *Cluster) Name() string { return c.state.Name }

// Kubeconfig is the path of the administrator's kubeconfig.
func (c *Cluster) Kubeconfig() string { return c.paths.kubeconfig() }

// Client is an administrator's client of the cluster.
func (c *Cluster) Client() kubernetes.Interface { return c.client }

// RESTConfig is an administrator's client configuration.
func (c *Cluster) RESTConfig() *rest.Config { return rest.CopyConfig(c.restConfig) }

// HostIP is where nodes and pods reach services on the host.
func (c *Cluster) HostIP() netip.Addr { return c.state.Plan.HostIP() }

// Shape is what the cluster was started with.
func (c *Cluster) Shape() shape.Shape { return c.state.Shape }

// NodeInfo describes a real node.
type NodeInfo struct {
	shape.Machine
	// IP is the node's address, reachable from the host.
	IP netip.Addr `json:"ip"`
	// PodCIDR is the network of its pods, reachable from the host.
	PodCIDR netip.Prefix `json:"podCIDR"`
	// PID of the node's init on the host; 0 when the machine is gone.
	PID int `json:"pid"`
	// GPUUUIDs are the simulated GPUs' identities in index order.
	GPUUUIDs []string `json:"gpuUUIDs,omitempty"`
	// Services run on the node; nil when the machine is gone.
	Services []machine.ServiceStatus `json:"services,omitempty"`
}

// Nodes describes the real nodes in the order of the shape.
func (c *Cluster) Nodes(ctx context.Context) ([]NodeInfo, error) {
	running, err := machine.Find(c.state.Name)
	if err != nil {
		return nil, err
	}
	list := make([]NodeInfo, 0, len(c.state.Shape.Nodes))
	for i, n := range c.state.Shape.Nodes {
		info := NodeInfo{
			Machine: n.Machine, IP: c.state.Plan.NodeIP(i), PodCIDR: c.state.Plan.PodCIDR(i),
			PID: running[n.Name], GPUUUIDs: n.GPUUUIDs(c.state.Name),
		}
		if info.PID != 0 {
			if info.Services, err = c.machine(n.Name).Services(ctx); err != nil {
				return nil, err
			}
		}
		list = append(list, info)
	}
	return list, nil
}

func (c *Cluster) node(index int) node.Node {
	return node.Node{Cluster: c.state.Name, Machine: c.state.Shape.Nodes[index].Machine, Plan: c.state.Plan, Index: index}
}

func (c *Cluster) machine(name string) *machine.Client {
	return machine.NewClient(c.paths.socket(name), name)
}

// index finds a real node by name.
func (c *Cluster) index(name string) (int, error) {
	all := make([]string, 0, len(c.state.Shape.Nodes))
	for i, n := range c.state.Shape.Nodes {
		if n.Name == name {
			return i, nil
		}
		all = append(all, n.Name)
	}
	return 0, fmt.Errorf("node %q: cluster %s has no such real node, it has %s", name, c.state.Name, strings.Join(all, ", "))
}

// Notice lets the node's metadata service announce that the cloud takes the
// machine at the deadline; action is terminate (default), stop or hibernate.
// Nothing happens at the deadline by itself: that is Reclaim.
func (c *Cluster) Notice(ctx context.Context, name string, deadline time.Time, action string) error {
	if deadline.IsZero() {
		return errors.New("notice: no deadline given, want for example two minutes from now")
	}
	return c.announce(ctx, name, node.Notice{At: deadline, Action: action})
}

// Rebalance lets the node's metadata service recommend to leave the machine.
func (c *Cluster) Rebalance(ctx context.Context, name string) error {
	return c.announce(ctx, name, node.Notice{Rebalance: true})
}

// Withdraw takes every announcement about the node back.
func (c *Cluster) Withdraw(ctx context.Context, name string) error {
	return c.announce(ctx, name, node.Notice{})
}

func (c *Cluster) announce(ctx context.Context, name string, notice node.Notice) error {
	if notice.Action != "" && !slices.Contains([]string{"terminate", "stop", "hibernate"}, notice.Action) {
		return fmt.Errorf("notice: action %q, want terminate, stop or hibernate", notice.Action)
	}
	i, err := c.index(name)
	if err != nil {
		return err
	}
	program, err := c.tool("ec2-metadata-mock")
	if err != nil {
		return err
	}
	return c.machine(name).SetArgs(ctx, node.ServiceMetadata, c.node(i).MetadataArgs(program, notice))
}

func (c *Cluster) tool(name string) (string, error) {
	if c.tools == nil {
		tools, err := toolchain.Cached(c.state.CacheDir)
		if err != nil {
			return "", err
		}
		c.tools = tools
	}
	return c.tools.Path(name), nil
}

// Kubectl is the path of the kubectl of the cluster's release.
func (c *Cluster) Kubectl() (string, error) { return c.tool("kubectl") }

// Reclaim takes the machine away at once, as the cloud does after a notice: no
// process on it gets a signal it could handle. The Node object stays, as it does
// until a cloud controller removes it.
func (c *Cluster) Reclaim(_ context.Context, name string) error {
	i, err := c.index(name)
	if err != nil {
		return err
	}
	running, err := machine.Find(c.state.Name)
	if err != nil {
		return err
	}
	pid := running[name]
	if pid == 0 {
		return fmt.Errorf("node %q: its machine is gone already", name)
	}
	if err := machine.Kill(pid); err != nil {
		return err
	}
	if err := c.discard(i); err != nil {
		return err
	}
	return c.routeServices()
}

// discard removes what a machine that no longer runs left on the host.
func (c *Cluster) discard(index int) error {
	n := c.node(index)
	name := n.Machine.Name
	return errors.Join(
		network.DetachNode(c.state.Plan, index),
		removeCgroup(n.CgroupRoot()),
		removeAll(c.paths.run("nodes", name)), removeAll(c.paths.socket(name)), removeAll(c.paths.disk("nodes", name)),
	)
}

// Replace starts a new, empty machine for a node whose machine is gone, and
// returns when it is Ready. Images have to be loaded again.
func (c *Cluster) Replace(ctx context.Context, name string) error {
	i, err := c.index(name)
	if err != nil {
		return err
	}
	running, err := machine.Find(c.state.Name)
	if err != nil {
		return err
	}
	if running[name] != 0 {
		return fmt.Errorf("node %q: its machine still runs, reclaim it first", name)
	}
	if c.tools, err = toolchain.Cached(c.state.CacheDir); err != nil {
		return err
	}
	pause, err := images.EnsurePause(ctx, c.state.CacheDir)
	if err != nil {
		return err
	}
	ca, err := loadAuthority(c.state.Name)
	if err != nil {
		return err
	}
	if err := c.discard(i); err != nil {
		return err
	}
	// The old machine's Node would look Ready until its last sign of life is old.
	if err := deleteNode(ctx, c.client, name); err != nil {
		return err
	}
	if err := createNode(ctx, c.client, c.state, i); err != nil {
		return err
	}
	if err := c.bootNode(ctx, i, ca, pause); err != nil {
		return err
	}
	if err := c.joinNode(ctx, i); err != nil {
		return err
	}
	return c.routeServices()
}

// Partition cuts the node off from the host and the other nodes. It keeps
// running, and reaches its own pods and its metadata service.
func (c *Cluster) Partition(_ context.Context, name string) error { return c.setLink(name, false) }

// Heal ends a partition.
func (c *Cluster) Heal(_ context.Context, name string) error { return c.setLink(name, true) }

func (c *Cluster) setLink(name string, up bool) error {
	i, err := c.index(name)
	if err != nil {
		return err
	}
	return network.SetNodeLink(c.state.Plan, i, up)
}

// StopService kills a service of the node, which stays away until StartService.
func (c *Cluster) StopService(ctx context.Context, name, service string) error {
	if _, err := c.index(name); err != nil {
		return err
	}
	return c.machine(name).Stop(ctx, service)
}

// StartService starts a service of the node that was stopped.
func (c *Cluster) StartService(ctx context.Context, name, service string) error {
	if _, err := c.index(name); err != nil {
		return err
	}
	return c.machine(name).Start(ctx, service)
}

// SetGPUHealth loses the node's simulated GPU of that index, or brings it back.
func (c *Cluster) SetGPUHealth(ctx context.Context, name string, gpu int, healthy bool) error {
	i, err := c.index(name)
	if err != nil {
		return err
	}
	uuids := c.state.Shape.Nodes[i].GPUUUIDs(c.state.Name)
	if gpu < 0 || gpu >= len(uuids) {
		return fmt.Errorf("GPU %d: node %s has %d GPUs, counted from 0", gpu, name, len(uuids))
	}
	current, err := c.machine(name).Run(ctx, nil, "sh", "-c", "cat "+node.GPUHealthFile+" 2>/dev/null || true")
	if err != nil {
		return err
	}
	lost := slices.DeleteFunc(strings.Fields(string(current)), func(u string) bool { return u == uuids[gpu] })
	if !healthy {
		lost = append(lost, uuids[gpu])
	}
	return c.machine(name).WriteFile(ctx, node.GPUHealthFile, []byte(strings.Join(append(lost, ""), "\n")))
}

// Exec runs a program on the node, outside of any pod, and returns its output.
func (c *Cluster) Exec(ctx context.Context, name string, args ...string) ([]byte, error) {
	if _, err := c.index(name); err != nil {
		return nil, err
	}
	return c.machine(name).Run(ctx, nil, args...)
}

// LoadImages imports docker-archive tars into the container runtime of every
// real node that runs.
func (c *Cluster) LoadImages(ctx context.Context, tars ...string) error {
	running, err := machine.Find(c.state.Name)
	if err != nil {
		return err
	}
	var nodes []string
	for _, n := range c.state.Shape.Nodes {
		if running[n.Name] != 0 {
			nodes = append(nodes, n.Name)
		}
	}
	return c.LoadImagesTo(ctx, nodes, tars...)
}

// LoadImagesTo imports docker-archive tars on the named nodes.
func (c *Cluster) LoadImagesTo(ctx context.Context, nodes []string, tars ...string) error {
	group, ctx := errgroup.WithContext(ctx)
	// Unpacking is disk work: more at once would only take turns.
	group.SetLimit(2)
	for _, tar := range tars {
		for _, name := range nodes {
			if _, err := c.index(name); err != nil {
				return err
			}
			group.Go(func() error { return c.loadImage(ctx, name, tar) })
		}
	}
	return group.Wait()
}

func (c *Cluster) loadImage(ctx context.Context, name, tar string) error {
	f, err := os.Open(tar)
	if err != nil {
		return fmt.Errorf("load an image: %w", err)
	}
	defer f.Close()
	if _, err := c.machine(name).Run(ctx, f, importCommand()...); err != nil {
		return fmt.Errorf("load %s: %w", tar, err)
	}
	return nil
}

// importCommand reads a docker-archive on standard input.
func importCommand() []string {
	return []string{"/usr/bin/ctr", "--address", node.ContainerdSocket, "--namespace", "k8s.io", "images", "import", "-"}
}

// Logs opens the log of one of a node's services, or of its init; the control
// plane's machine is called control-plane.
func (c *Cluster) Logs(name, service string) (io.ReadCloser, error) {
	if name != controlPlane {
		if _, err := c.index(name); err != nil {
			return nil, err
		}
	}
	f, err := os.Open(c.paths.logs(name) + "/" + service + ".log")
	if err != nil {
		return nil, fmt.Errorf("open the log of %s on %s: %w", service, name, err)
	}
	return f, nil
}

// Down removes the cluster without a trace.
func (c *Cluster) Down(_ context.Context) error { return Down(c.state.Name, io.Discard) }
