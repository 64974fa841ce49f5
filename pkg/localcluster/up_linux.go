// SPDX-License-Identifier: Apache-2.0

package localcluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"reflect"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/spotbench/spotbench/pkg/images"
	"github.com/spotbench/spotbench/pkg/localcluster/machine"
	"github.com/spotbench/spotbench/pkg/localcluster/network"
	"github.com/spotbench/spotbench/pkg/localcluster/node"
	"github.com/spotbench/spotbench/pkg/localcluster/pki"
	"github.com/spotbench/spotbench/pkg/localcluster/toolchain"
)

// readyTimeout bounds how long nodes may take to become Ready, and slowestKwokNode by
// how much each simulated one prolongs that.
const (
	readyTimeout    = 3 * time.Minute
	slowestKwokNode = 100 * time.Millisecond
)

// Build fetches and builds everything a cluster of these options needs, and
// starts nothing.
func Build(ctx context.Context, o Options) error {
	if err := o.complete(); err != nil {
		return err
	}
	_, _, err := prepare(ctx, o, newProgress(o), toolchain.Kwok, toolchain.KubeRouter, toolchain.MinIO,
		toolchain.WorkflowController, toolchain.Argoexec, toolchain.Karpenter)
	return err
}

func prepare(ctx context.Context, o Options, say toolchain.Progress, with ...string) (*toolchain.Set, string, error) {
	if err := toolchain.EnsureDebian(ctx, say); err != nil {
		return nil, "", err
	}
	tools, err := toolchain.Ensure(ctx, o.CacheDir, say, with...)
	if err != nil {
		return nil, "", err
	}
	pause, err := images.EnsurePause(ctx, o.CacheDir)
	return tools, pause, err
}

// Up starts a cluster and returns when all its nodes are Ready and offer their
// GPUs. A cluster of that name that is up and has the same shape is returned as
// it is; what a broken start left behind is removed first.
func Up(ctx context.Context, o Options) (*Cluster, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	if err := Check(); err != nil {
		return nil, err
	}
	say := newProgress(o)
	var with []string
	if o.Shape.KwokNodes() > 0 {
		with = append(with, toolchain.Kwok)
	}
	if o.NetworkPolicies {
		with = append(with, toolchain.KubeRouter)
	}
	tools, pause, err := prepare(ctx, o, say, with...)
	if err != nil {
		return nil, err
	}
	if c, err := Open(o.Name); err == nil {
		if !reflect.DeepEqual(c.state.Shape, o.Shape) || c.state.NetworkPolicies != o.NetworkPolicies {
			return nil, fmt.Errorf("cluster %s is up with another shape or other options: take it down first", o.Name)
		}
		say("cluster %s is already up", o.Name)
		return c, nil
	}
	if err := Down(o.Name, o.Progress); err != nil {
		return nil, fmt.Errorf("remove what an earlier start of cluster %s left behind: %w", o.Name, err)
	}
	s := &state{Name: o.Name, Shape: o.Shape, CacheDir: o.CacheDir, NVML: o.NVMLLibrary, NetworkPolicies: o.NetworkPolicies, CreatedAt: time.Now().UTC()}
	if err := claimNetwork(s); err != nil {
		return nil, err
	}
	c := &Cluster{state: s, paths: paths{s.Name}, tools: tools}
	if err := c.start(ctx, say, pause); err != nil {
		return nil, fmt.Errorf("start cluster %s: %w (logs are under %s; `localcluster down` removes everything)", o.Name, err, c.paths.disk("logs"))
	}
	s.Complete = true
	if err := s.save(); err != nil {
		return nil, err
	}
	say("cluster %s is up: %d nodes Ready; kubeconfig %s", o.Name, len(s.Shape.Nodes)+s.Shape.KwokNodes(), c.Kubeconfig())
	return c, nil
}

// newProgress prints lines with the seconds since now in front.
func newProgress(o Options) toolchain.Progress {
	start := time.Now()
	var mu sync.Mutex
	return func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(o.Progress, "[%4.0fs] "+format+"\n", append([]any{time.Since(start).Seconds()}, args...)...)
	}
}

// claimNetwork chooses the cluster's network and makes its bridge, which keeps
// others from choosing the same.
func claimNetwork(s *state) error {
	unlock, err := lockAll()
	if err != nil {
		return err
	}
	defer unlock()
	taken, err := network.Taken()
	if err != nil {
		return err
	}
	// A cluster that broke between its state and its bridge still owns its plan.
	others, err := names()
	if err != nil {
		return err
	}
	for _, name := range others {
		if other, err := load(name); err == nil && other != nil && name != s.Name {
			taken = append(taken, other.Plan.CIDR())
		}
	}
	if s.Plan, err = network.Choose(taken); err != nil {
		return err
	}
	// The state comes first: whatever is made later, `down` knows its names.
	if err := s.save(); err != nil {
		return err
	}
	if err := raiseInotify(); err != nil {
		return err
	}
	return network.CreateBridge(s.Plan)
}

func (c *Cluster) start(ctx context.Context, say toolchain.Progress, pause string) error {
	s := c.state
	ca, err := issueAll(s)
	if err != nil {
		return err
	}
	spec, err := controlPlaneSpec(s, c.tools)
	if err != nil {
		return err
	}
	say("starting the control plane (etcd, Kubernetes %s) and %d nodes", toolchain.KubernetesVersion, len(s.Shape.Nodes))
	if err := machine.Start(s.Name, controlPlane, spec, nil); err != nil {
		return err
	}
	if c.client, c.restConfig, err = newClient(c.paths.kubeconfig()); err != nil {
		return err
	}
	joined := make(chan struct{})
	started := ctx
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := waitForAPIServer(ctx, c.client); err != nil {
			return err
		}
		say("API server ready")
		for i := range s.Shape.Nodes {
			if err := createNode(ctx, c.client, s, i); err != nil {
				return err
			}
		}
		close(joined)
		if err := createAddons(ctx, c.client, s.Plan); err != nil {
			return err
		}
		if s.NetworkPolicies {
			if err := allowNetworkPolicies(ctx, c.client); err != nil {
				return err
			}
		}
		control := c.machine(controlPlane)
		if err := control.Start(ctx, "coredns"); err != nil {
			return err
		}
		return waitForDNS(ctx, s.Plan)
	})
	for i, n := range s.Shape.Nodes {
		group.Go(func() error {
			if err := c.bootNode(ctx, i, ca, pause); err != nil {
				return err
			}
			select {
			case <-joined:
			case <-ctx.Done():
				return ctx.Err()
			}
			if err := c.joinNode(ctx, i); err != nil {
				return err
			}
			say("node %s Ready", n.Name)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := c.routeServices(); err != nil {
		return err
	}
	return c.startKwok(started, say)
}

// startKwok makes the simulated nodes, once the real ones are there: thousands of them
// would hold these up, and are ready no sooner for it.
func (c *Cluster) startKwok(ctx context.Context, say toolchain.Progress) error {
	total := c.state.Shape.KwokNodes()
	if total == 0 {
		return nil
	}
	say("making %d simulated nodes", total)
	if err := c.machine(controlPlane).Start(ctx, toolchain.Kwok); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout+time.Duration(total)*slowestKwokNode)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return createKwokNodes(ctx, c.client, c.state) })
	group.Go(func() error { return waitForKwok(ctx, c.client, total, say) })
	if err := group.Wait(); err != nil {
		return err
	}
	say("%d simulated nodes Ready", total)
	return nil
}

// bootNode starts a node's machine up to a container runtime that has the pause
// image; its kubelet does not run yet.
func (c *Cluster) bootNode(ctx context.Context, index int, ca *pki.Authority, pause string) error {
	s := c.state
	n := c.node(index)
	name := n.Machine.Name
	if err := createCgroup(n.CgroupRoot()); err != nil {
		return err
	}
	in := node.Inputs{
		Tool: c.tools.Path, ToolDir: c.tools.Dir, APIServer: apiServerURL(s.Plan), CA: ca, Nodes: len(s.Shape.Nodes), Shape: s.Shape, NetworkPolicies: s.NetworkPolicies,
		Socket: c.paths.socket(name), LogDir: c.paths.logs(name), StagingDir: c.paths.run("nodes", name), DiskDir: c.paths.disk("nodes", name),
	}
	if s.NVML != "" {
		library, err := os.ReadFile(s.NVML)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("read the simulated driver library: %w", err)
		}
		in.DriverLibrary = library
	}
	for _, dir := range []string{in.StagingDir, in.DiskDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make the directories of node %s: %w", name, err)
		}
	}
	spec, err := n.Spec(in)
	if err != nil {
		return err
	}
	attach := func(pid int) error { return network.AttachNode(s.Plan, index, pid) }
	if err := machine.Start(s.Name, name, spec, attach); err != nil {
		return err
	}
	image, err := os.ReadFile(pause)
	if err != nil {
		return fmt.Errorf("read the pause image: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return waitFor(ctx, "the container runtime of node "+name+" does not take images", func(ctx context.Context) (bool, error) {
		_, err := c.machine(name).Run(ctx, bytes.NewReader(image), importCommand()...)
		return err == nil, err
	})
}

// joinNode starts a booted node's kubelet and waits until the node is Ready.
func (c *Cluster) joinNode(ctx context.Context, index int) error {
	m := c.state.Shape.Nodes[index].Machine
	for _, service := range []string{node.ServiceKubelet, node.ServiceKubeProxy} {
		if err := c.machine(m.Name).Start(ctx, service); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if err := waitForNode(ctx, c.client, m); err != nil {
		return err
	}
	if !c.state.NetworkPolicies {
		return nil
	}
	return c.machine(m.Name).Start(ctx, node.ServiceNetworkPolicy)
}

// routeServices lets the host reach Services over a node that still runs,
// preferring one without GPUs: those are not reclaimed in any scenario of ours.
func (c *Cluster) routeServices() error {
	running, err := machine.Find(c.state.Name)
	if err != nil {
		return err
	}
	var via netip.Addr
	for i, n := range c.state.Shape.Nodes {
		if _, ok := running[n.Name]; ok && (!via.IsValid() || n.GPU == nil) {
			via = c.state.Plan.NodeIP(i)
		}
	}
	if !via.IsValid() {
		return nil
	}
	return network.RouteServices(c.state.Plan, via)
}
