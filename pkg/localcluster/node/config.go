// SPDX-License-Identifier: Apache-2.0

// Package node renders what runs on a real node of a local cluster: the
// configuration of containerd, the CNI plugins, the kubelet, kube-proxy and the
// cloud's metadata mock, and the command lines of the services. It is pure: no
// file is written and no process started here.
package node

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/spotbench/spotbench/pkg/localcluster/network"
	"github.com/spotbench/spotbench/pkg/localcluster/shape"
)

// PauseImage holds every pod's namespaces; it is built with the other images.
const PauseImage = "spotbench.dev/pause:3.10"

// ContainerdSocket is where the container runtime listens on every node.
const ContainerdSocket = "/run/containerd/containerd.sock"

// DriverRoot is where the NVIDIA GPU Operator puts a node's driver.
const DriverRoot = "/run/nvidia/driver"

// DriverLibraryDir holds libnvidia-ml.so.1 and its scenario file gpu-sim.conf.
const DriverLibraryDir = DriverRoot + "/usr/lib/x86_64-linux-gnu"

// GPUHealthFile lists the UUIDs of the simulated GPUs that are lost, one a line.
const GPUHealthFile = "/run/spotbench/lost-gpus"

// Metadata is the address of the cloud's metadata service on every node.
var Metadata = netip.AddrFrom4([4]byte{169, 254, 169, 254})

// Node is one node of a cluster.
type Node struct {
	Cluster string
	Machine shape.Machine
	Plan    network.Plan
	Index   int
}

// IP is the node's address.
func (n Node) IP() netip.Addr { return n.Plan.NodeIP(n.Index) }

// CgroupRoot is the node's place under every cgroup controller. A kubelet kills
// the pods it does not know under its root, so no two nodes may share one.
func (n Node) CgroupRoot() string { return ClusterCgroup(n.Cluster) + "/" + n.Machine.Name }

// ClusterCgroup is the parent of the nodes' cgroups.
func ClusterCgroup(cluster string) string { return "/spotbench/" + cluster }

// Containerd is the configuration of the container runtime (version 1.6).
func (n Node) Containerd() []byte {
	// restrict_oom_score_adj: where root lacks CAP_SYS_RESOURCE, as inside many
	// containers, no pod could start otherwise.
	return fmt.Appendf(nil, `version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]

[grpc]
  address = %q

[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  restrict_oom_score_adj = true
  disable_apparmor = true
  tolerate_missing_hugetlb_controller = true
  disable_hugetlb_controller = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
`, ContainerdSocket, PauseImage)
}

// CNI is the network configuration list of the node's pods. Their addresses are
// routed, not masqueraded: every peer sees the pod's own.
func (n Node) CNI() ([]byte, error) {
	return encodeJSON("CNI configuration", map[string]any{
		"cniVersion": "0.4.0",
		"name":       "pods",
		"plugins": []any{
			map[string]any{
				"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true, "mtu": 1500,
				"ipam": map[string]any{
					"type":    "host-local",
					"dataDir": "/run/cni/ipam",
					"ranges":  []any{[]any{map[string]string{"subnet": n.Plan.PodCIDR(n.Index).String()}}},
					"routes":  []any{map[string]string{"dst": "0.0.0.0/0"}},
				},
			},
			map[string]any{"type": "portmap", "capabilities": map[string]bool{"portMappings": true}},
		},
	})
}

// Kubelet is the KubeletConfiguration.
func (n Node) Kubelet() ([]byte, error) {
	return encodeYAML("kubelet configuration", map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1",
		"kind":       "KubeletConfiguration",
		"authentication": map[string]any{
			"anonymous": map[string]any{"enabled": false},
			"webhook":   map[string]any{"enabled": true},
			"x509":      map[string]any{"clientCAFile": "/etc/kubernetes/pki/ca.crt"},
		},
		"authorization":            map[string]any{"mode": "Webhook"},
		"tlsCertFile":              "/etc/kubernetes/pki/kubelet.crt",
		"tlsPrivateKeyFile":        "/etc/kubernetes/pki/kubelet.key",
		"containerRuntimeEndpoint": "unix://" + ContainerdSocket,
		"cgroupDriver":             "cgroupfs",
		"cgroupRoot":               n.CgroupRoot(),
		"enforceNodeAllocatable":   []string{},
		"failCgroupV1":             false,
		"failSwapOn":               false,
		"clusterDNS":               []string{n.Plan.DNSServiceIP().String()},
		"clusterDomain":            "cluster.local",
		"providerID":               n.Machine.ProviderID(n.Cluster),
		"registerWithTaints":       n.Machine.NodeTaints(),
		"volumePluginDir":          "/var/lib/kubelet/volumeplugins",
		"staticPodPath":            "/etc/kubernetes/manifests",
		"resolvConf":               "/etc/resolv.conf",
		"oomScoreAdj":              0,
		"maxPods":                  110,
		// All nodes share one disk and one memory: none may clean up or evict
		// because of what the others use.
		"evictionHard":                map[string]string{"memory.available": "50Mi", "nodefs.available": "1%", "nodefs.inodesFree": "1%", "imagefs.available": "1%"},
		"imageGCHighThresholdPercent": 100,
		"imageGCLowThresholdPercent":  99,
		// A lost node is noticed within NodeMonitorGracePeriod.
		"nodeLeaseDurationSeconds":  int(NodeMonitorGracePeriod.Seconds()),
		"nodeStatusUpdateFrequency": "3s",
		"kubeAPIQPS":                50,
		"kubeAPIBurst":              100,
	})
}

// KubeProxy is the KubeProxyConfiguration. Its rules live in the node's network
// namespace.
func (n Node) KubeProxy() ([]byte, error) {
	return encodeYAML("kube-proxy configuration", map[string]any{
		"apiVersion":       "kubeproxy.config.k8s.io/v1alpha1",
		"kind":             "KubeProxyConfiguration",
		"mode":             "iptables",
		"hostnameOverride": n.Machine.Name,
		"clientConnection": map[string]any{"kubeconfig": "/etc/kubernetes/kube-proxy.conf"},
		// Only what comes from this bridge is a pod of this node; anything else
		// that asks for a Service, the host too, is masqueraded so that the answer
		// comes back this way.
		"detectLocalMode": "BridgeInterface",
		"detectLocal":     map[string]any{"bridgeInterface": "cni0"},
		"oomScoreAdj":     0,
		// The table's size belongs to the whole host: leave it.
		"conntrack": map[string]any{"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
	})
}

// MetadataConfig is what the metadata mock answers for this machine, beside
// its defaults.
func (n Node) MetadataConfig() ([]byte, error) {
	lifecycle := "on-demand"
	if n.Machine.CapacityType == "spot" {
		lifecycle = "spot"
	}
	id, ip := shape.InstanceID(n.Cluster, n.Machine.Name), n.IP().String()
	return encodeJSON("metadata configuration", map[string]any{
		"metadata": map[string]any{"values": map[string]any{
			"instance-id":                 id,
			"instance-type":               n.Machine.InstanceType,
			"instance-life-cycle":         lifecycle,
			"placement-availability-zone": n.Machine.Zone,
			"placement-region":            n.Machine.Region,
			"local-ipv4":                  ip,
			"hostname":                    n.Machine.Name,
			"local-hostname":              n.Machine.Name,
		}},
		"dynamic": map[string]any{"values": map[string]any{
			"instance-identity-document": map[string]any{
				"accountId": "000000000000", "architecture": "x86_64", "version": "2017-09-30",
				"availabilityZone": n.Machine.Zone, "region": n.Machine.Region,
				"instanceId": id, "instanceType": n.Machine.InstanceType, "privateIp": ip,
			},
		}},
	})
}

// Hosts is the node's /etc/hosts.
func (n Node) Hosts() []byte {
	return fmt.Appendf(nil, "127.0.0.1 localhost\n::1 localhost\n%s %s\n", n.IP(), n.Machine.Name)
}

// Capacity is the capacity a kwok group's nodes report.
func Capacity(g shape.KwokGroup) map[corev1.ResourceName]string {
	c := map[corev1.ResourceName]string{corev1.ResourceCPU: "32", corev1.ResourceMemory: "256Gi", corev1.ResourcePods: "110"}
	for k, v := range g.Capacity {
		c[corev1.ResourceName(k)] = v
	}
	if g.GPU != nil {
		c[shape.ResourceGPU] = strconv.Itoa(g.GPU.Count)
	}
	return c
}

func encodeJSON(what string, v any) ([]byte, error) {
	out, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("render the %s: %w", what, err)
	}
	return append(out, '\n'), nil
}

func encodeYAML(what string, v any) ([]byte, error) {
	out, err := yaml.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("render the %s: %w", what, err)
	}
	return out, nil
}
