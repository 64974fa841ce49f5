// SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spotbench/spotbench/pkg/localcluster/machine"
	"github.com/spotbench/spotbench/pkg/localcluster/pki"
	"github.com/spotbench/spotbench/pkg/localcluster/shape"
)

// NodeMonitorGracePeriod is how long after a node's last sign of life it is
// NotReady. Kubernetes' default of 50 s would only make tests slow.
const NodeMonitorGracePeriod = 20 * time.Second

// The services of a node.
const (
	ServiceContainerd   = "containerd"
	ServiceKubelet      = "kubelet"
	ServiceKubeProxy    = "kube-proxy"
	ServiceMetadata     = "metadata"
	ServiceDevicePlugin = "gpu-device-plugin"
	// ServiceNetworkPolicy enforces NetworkPolicies, where the cluster does.
	ServiceNetworkPolicy = "kube-router"
)

// NetworkPolicyUser is who asks the API server for policies.
const NetworkPolicyUser = "system:kube-router"

// Inputs are what a node's machine needs beside its configuration.
type Inputs struct {
	// Tool returns the file of a program of the toolchain.
	Tool func(name string) string
	// ToolDir holds all of them.
	ToolDir string
	// APIServer is the URL of the API server.
	APIServer string
	CA        *pki.Authority
	// Nodes is the number of real nodes.
	Nodes int
	// Shape describes the GPU models.
	Shape shape.Shape
	// DriverLibrary is the simulated libnvidia-ml.so.1; empty for none.
	DriverLibrary []byte
	// NetworkPolicies are enforced on the node.
	NetworkPolicies bool
	// Paths on the host.
	Socket, LogDir, StagingDir, DiskDir string
}

// diskPaths are kept on disk; everything else a node writes is in memory.
var diskPaths = []string{"/var/lib/kubelet", "/var/lib/containerd", "/var/log", "/var/lib/spotbench", "/mnt", "/srv"}

// Spec is the machine that makes the node.
func (n Node) Spec(in Inputs) (machine.Spec, error) {
	files, err := n.files(in)
	if err != nil {
		return machine.Spec{}, fmt.Errorf("node %s: %w", n.Machine.Name, err)
	}
	services := []machine.Service{
		{Name: ServiceContainerd, Args: []string{"/usr/bin/containerd", "--config", "/etc/containerd/config.toml"}},
		{Name: ServiceMetadata, Args: n.MetadataArgs(in.Tool("ec2-metadata-mock"), Notice{})},
		// Until the API server knows the node's labels, the kubelet must not
		// register it without them.
		{Name: ServiceKubelet, Held: true, Args: []string{in.Tool("kubelet"),
			"--config=/etc/kubernetes/kubelet.yaml", "--kubeconfig=/etc/kubernetes/kubelet.conf",
			"--hostname-override=" + n.Machine.Name, "--node-ip=" + n.IP().String(), "--v=2"}},
		{Name: ServiceKubeProxy, Held: true, Args: []string{in.Tool("kube-proxy"), "--config=/etc/kubernetes/kube-proxy.yaml", "--v=1"}},
	}
	if in.NetworkPolicies {
		// Only its firewall: addresses and Services are others' work here. It asks for
		// the node's own address when it starts, so it starts when the kubelet has told.
		services = append(services, machine.Service{Name: ServiceNetworkPolicy, Held: true, Args: []string{in.Tool("kube-router"),
			"--run-firewall=true", "--run-router=false", "--run-service-proxy=false", "--enable-cni=false",
			"--kubeconfig=/etc/kubernetes/kube-router.conf", "--hostname-override=" + n.Machine.Name,
			"--service-cluster-ip-range=" + n.Plan.ServiceCIDR().String(), "--v=1"}})
	}
	if n.Machine.GPU != nil {
		args := []string{DevicePluginArgv0, "--resource", string(shape.ResourceGPU), "--lost", GPUHealthFile, "--listen", DevicePluginAddress}
		services = append(services, machine.Service{Name: ServiceDevicePlugin, Program: "/proc/self/exe", Args: append(args, n.Machine.GPUUUIDs(n.Cluster)...)})
	}
	return machine.Spec{
		Socket: in.Socket, LogDir: in.LogDir, Services: services,
		Node: &machine.NodeSpec{
			Hostname: n.Machine.Name, Plan: n.Plan, Index: n.Index, Nodes: in.Nodes, Metadata: Metadata,
			StagingDir: in.StagingDir, DiskDir: in.DiskDir, DiskPaths: diskPaths, Binds: []string{in.ToolDir}, Files: files,
		},
	}, nil
}

// DevicePluginArgv0 is the name under which a program that uses local clusters
// becomes a node's simulated device plugin.
const DevicePluginArgv0 = "spotbench-gpu-device-plugin"

// DevicePluginAddress is where a node's device plugin answers /healthz, /readyz
// and /metrics, on all of the node's addresses.
const DevicePluginAddress = ":9809"

func (n Node) files(in Inputs) ([]machine.File, error) {
	var files []machine.File
	add := func(path string, mode uint32, content []byte) {
		files = append(files, machine.File{Path: path, Content: content, Mode: mode})
	}
	add("/etc/hosts", 0o644, n.Hosts())
	add("/etc/hostname", 0o644, []byte(n.Machine.Name+"\n"))
	add("/etc/containerd/config.toml", 0o644, n.Containerd())
	add("/etc/kubernetes/pki/ca.crt", 0o644, in.CA.CertPEM)
	// The directory must exist.
	add("/etc/kubernetes/manifests/.keep", 0o644, nil)
	for path, render := range map[string]func() ([]byte, error){
		"/etc/cni/net.d/10-pods.conflist":    n.CNI,
		"/etc/kubernetes/kubelet.yaml":       n.Kubelet,
		"/etc/kubernetes/kube-proxy.yaml":    n.KubeProxy,
		"/etc/spotbench-cloud/metadata.json": n.MetadataConfig,
	} {
		content, err := render()
		if err != nil {
			return nil, err
		}
		add(path, 0o644, content)
	}
	serving, err := in.CA.Issue(pki.Request{CommonName: "system:node:" + n.Machine.Name, Groups: []string{"system:nodes"}, Hosts: []string{n.Machine.Name, n.IP().String()}})
	if err != nil {
		return nil, err
	}
	add("/etc/kubernetes/pki/kubelet.crt", 0o644, serving.Cert)
	add("/etc/kubernetes/pki/kubelet.key", 0o600, serving.Key)
	clients := map[string]pki.Request{
		"/etc/kubernetes/kubelet.conf":    {CommonName: "system:node:" + n.Machine.Name, Groups: []string{"system:nodes"}},
		"/etc/kubernetes/kube-proxy.conf": {CommonName: "system:kube-proxy"},
	}
	if in.NetworkPolicies {
		clients["/etc/kubernetes/kube-router.conf"] = pki.Request{CommonName: NetworkPolicyUser}
	}
	for path, who := range clients {
		pair, err := in.CA.Issue(who)
		if err != nil {
			return nil, err
		}
		kubeconfig, err := pki.Kubeconfig(n.Cluster, in.APIServer, who.CommonName, in.CA.CertPEM, pair)
		if err != nil {
			return nil, err
		}
		add(path, 0o600, kubeconfig)
	}
	if n.Machine.GPU != nil && in.DriverLibrary != nil {
		add(filepath.Join(DriverLibraryDir, "libnvidia-ml.so.1"), 0o755, in.DriverLibrary)
		add(filepath.Join(DriverLibraryDir, "gpu-sim.conf"), 0o644, []byte(in.Shape.DriverConfig(n.Machine, n.Cluster)))
	}
	return files, nil
}

// Notice is what the cloud announces about a machine. The zero value: nothing.
type Notice struct {
	// At is when the machine will be taken; zero for no spot notice.
	At time.Time
	// Action is terminate, stop or hibernate.
	Action string
	// Rebalance says that the cloud recommends to leave the machine.
	Rebalance bool
}

// never is a delay in seconds that outlives every cluster.
const never = 1_000_000_000

// MetadataArgs is the command line of the metadata mock: IMDSv2 only, with the
// given announcements in effect from its start.
func (n Node) MetadataArgs(program string, notice Notice) []string {
	action, spotDelay, at, rebalanceDelay := notice.Action, 0, notice.At, never
	if action == "" {
		action = "terminate"
	}
	if at.IsZero() {
		spotDelay, at = never, time.Unix(never*4, 0)
	}
	if notice.Rebalance {
		rebalanceDelay = 0
	}
	return []string{program, "spot",
		"--hostname", Metadata.String(), "--port", "80",
		"--imdsv2",
		"--mock-ip-count", "-1", // by default only two clients ever see a notice
		"--mock-delay-sec", strconv.Itoa(spotDelay),
		"--rebalance-delay-sec", strconv.Itoa(rebalanceDelay),
		"--action", action,
		"--time", at.UTC().Format(time.RFC3339), // by default the deadline moves with every request
		"--config-file", "/etc/spotbench-cloud/metadata.json",
	}
}
