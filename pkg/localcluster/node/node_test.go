// SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/spotbench/spotbench/pkg/localcluster/machine"
	"github.com/spotbench/spotbench/pkg/localcluster/network"
	"github.com/spotbench/spotbench/pkg/localcluster/node"
	"github.com/spotbench/spotbench/pkg/localcluster/pki"
	"github.com/spotbench/spotbench/pkg/localcluster/shape"
)

// second is the default cluster's node h100-spot-0 in the second network.
func second(cluster string) node.Node {
	return node.Node{Cluster: cluster, Machine: shape.Default().Nodes[1].Machine, Plan: network.Plan{Index: 1}, Index: 1}
}

func decode(t *testing.T, render func() ([]byte, error)) map[string]any {
	t.Helper()
	data, err := render()
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := yaml.UnmarshalStrict(data, &out); err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
	return out
}

func TestNoTwoNodesShareACgroupOrAnAddress(t *testing.T) {
	seen := map[string]string{}
	for i, cluster := range []string{"a", "b"} {
		for j := range 2 {
			n := node.Node{Cluster: cluster, Machine: shape.Default().Nodes[j].Machine, Plan: network.Plan{Index: i}, Index: j}
			for _, unique := range []string{n.CgroupRoot(), n.IP().String(), n.Machine.ProviderID(cluster)} {
				if other, ok := seen[unique]; ok {
					t.Errorf("%s and %s/%s share %s", other, cluster, n.Machine.Name, unique)
				}
				seen[unique] = cluster + "/" + n.Machine.Name
			}
		}
	}
}

func TestTheKubeletKeepsToItsNodeAndItsCluster(t *testing.T) {
	n := second("demo")
	got := decode(t, n.Kubelet)
	for field, want := range map[string]any{
		"cgroupRoot":                  "/spotbench/demo/h100-spot-0",
		"containerRuntimeEndpoint":    "unix:///run/containerd/containerd.sock",
		"providerID":                  "aws:///us-east-1b/" + shape.InstanceID("demo", "h100-spot-0"),
		"failCgroupV1":                false,
		"imageGCHighThresholdPercent": 100.0,
	} {
		if got[field] != want {
			t.Errorf("%s is %v, want %v", field, got[field], want)
		}
	}
	// Network 1 is 10.201.0.0/16; DNS is .240.10 in every one.
	if dns, ok := got["clusterDNS"].([]any); !ok || len(dns) != 1 || dns[0] != "10.201.240.10" {
		t.Errorf("clusterDNS is %v, want 10.201.240.10", got["clusterDNS"])
	}
	if auth, err := json.Marshal(got["authentication"]); err != nil || !strings.Contains(string(auth), `"anonymous":{"enabled":false}`) {
		t.Errorf("authentication %s lets anybody in", auth)
	}
}

func TestContainerdWorksWithoutCapSysResourceAndUsesOurPauseImage(t *testing.T) {
	got := string(second("demo").Containerd())
	for _, want := range []string{"restrict_oom_score_adj = true", `sandbox_image = "spotbench.dev/pause:3.10"`, `address = "/run/containerd/containerd.sock"`, `bin_dir = "/usr/lib/cni"`} {
		if !strings.Contains(got, want) {
			t.Errorf("containerd's configuration has no %s", want)
		}
	}
}

func TestPodsGetAddressesOfTheirNode(t *testing.T) {
	data, err := second("demo").CNI()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(data), `"subnet": "10.201.17.0/24"`) || !strings.Contains(string(data), `"ipMasq": false`) {
		t.Errorf("want the second node's pod network 10.201.17.0/24 without masquerading:\n%s", data)
	}
}

func TestTheMetadataServiceAnnouncesWhatItIsTold(t *testing.T) {
	deadline := time.Date(2026, 11, 23, 12, 0, 0, 0, time.FixedZone("CET", 3600))
	for _, c := range []struct {
		name   string
		notice node.Notice
		want   map[string]string
	}{
		{"nothing", node.Notice{}, map[string]string{"--mock-delay-sec": "1000000000", "--rebalance-delay-sec": "1000000000"}},
		{"a spot notice, at a fixed time in UTC", node.Notice{At: deadline}, map[string]string{"--mock-delay-sec": "0", "--time": "2026-11-23T11:00:00Z", "--action": "terminate", "--rebalance-delay-sec": "1000000000"}},
		{"another action", node.Notice{At: deadline, Action: "stop"}, map[string]string{"--action": "stop"}},
		{"a recommendation to leave", node.Notice{Rebalance: true}, map[string]string{"--mock-delay-sec": "1000000000", "--rebalance-delay-sec": "0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := second("demo").MetadataArgs("mock", c.notice)
			if !slices.Contains(args, "--imdsv2") || !slices.Contains(args, "169.254.169.254") {
				t.Errorf("arguments %v: want IMDSv2 at 169.254.169.254", args)
			}
			for flag, want := range c.want {
				if i := slices.Index(args, flag); i < 0 || args[i+1] != want {
					t.Errorf("arguments %v: want %s %s", args, flag, want)
				}
			}
		})
	}
	data, err := second("demo").MetadataConfig()
	if err != nil || !strings.Contains(string(data), `"instance-life-cycle": "spot"`) || !strings.Contains(string(data), shape.InstanceID("demo", "h100-spot-0")) {
		t.Errorf("metadata of a spot node: %s, %v", data, err)
	}
}

func TestTheDriverAndTheDevicePluginHaveTheSameGPUs(t *testing.T) {
	ca, err := pki.NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	n := second("demo")
	in := node.Inputs{Tool: func(name string) string { return "/tools/" + name }, ToolDir: "/tools", APIServer: "https://10.201.0.1:6443", CA: ca, Nodes: 5, Shape: shape.Default(), DriverLibrary: []byte("ELF")}
	spec, err := n.Spec(in)
	if err != nil {
		t.Fatal(err)
	}
	plugin := spec.Services[slices.IndexFunc(spec.Services, func(s machine.Service) bool { return s.Name == node.ServiceDevicePlugin })]
	config := file(spec, node.DriverLibraryDir+"/gpu-sim.conf")
	if config == nil || file(spec, "/run/nvidia/driver/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1") == nil {
		t.Fatal("the node has no driver")
	}
	for _, uuid := range n.Machine.GPUUUIDs("demo") {
		if !strings.Contains(string(config.Content), "uuid="+uuid+" ") || !slices.Contains(plugin.Args, uuid) {
			t.Errorf("GPU %s is not known to both", uuid)
		}
	}
	for _, s := range spec.Services {
		// A kubelet that registered before its Node has labels would get pods it must not.
		if held := s.Name == node.ServiceKubelet || s.Name == node.ServiceKubeProxy; s.Held != held {
			t.Errorf("service %s is held: %v, want %v", s.Name, s.Held, held)
		}
	}
	for _, f := range spec.Node.Files {
		if secret := strings.HasSuffix(f.Path, ".key") || strings.HasSuffix(f.Path, ".conf") && strings.HasPrefix(f.Path, "/etc/kubernetes"); secret && f.Mode != 0o600 {
			t.Errorf("%s holds a key and has mode %o, want 600", f.Path, f.Mode)
		}
	}

	in.DriverLibrary = nil
	spec, err = n.Spec(in)
	if err != nil || file(spec, node.DriverLibraryDir+"/gpu-sim.conf") != nil {
		t.Errorf("a node without a driver library has a driver: %v", err)
	}
	system := node.Node{Cluster: "demo", Machine: shape.Default().Nodes[4].Machine, Index: 4}
	spec, err = system.Spec(in)
	if err != nil || slices.ContainsFunc(spec.Services, func(s machine.Service) bool { return s.Name == node.ServiceDevicePlugin }) {
		t.Errorf("a node without GPUs has a device plugin: %v", err)
	}
}

func TestANodeEnforcesNetworkPoliciesWhereTheClusterAsksForIt(t *testing.T) {
	ca, err := pki.NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	for _, enforced := range []bool{false, true} {
		in := node.Inputs{Tool: func(name string) string { return "/tools/" + name }, ToolDir: "/tools", APIServer: "https://10.201.0.1:6443", CA: ca, Nodes: 5, Shape: shape.Default(), NetworkPolicies: enforced}
		spec, err := second("demo").Spec(in)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(spec.Services, func(s machine.Service) bool { return s.Name == node.ServiceNetworkPolicy })
		if (i >= 0) != enforced || (file(spec, "/etc/kubernetes/kube-router.conf") != nil) != enforced {
			t.Errorf("asked %v, the node has a policy engine: %v", enforced, i >= 0)
		}
		if i < 0 {
			continue
		}
		engine := spec.Services[i]
		// Services of network 1 are 10.201.240.0/20; routes and Services are not its work.
		for _, want := range []string{"--service-cluster-ip-range=10.201.240.0/20", "--run-router=false", "--run-service-proxy=false", "--hostname-override=h100-spot-0"} {
			if !slices.Contains(engine.Args, want) {
				t.Errorf("its arguments %v lack %s", engine.Args, want)
			}
		}
		if !engine.Held {
			t.Error("it starts before the API server knows the node's address")
		}
	}
}

func file(spec machine.Spec, path string) *machine.File {
	for i := range spec.Node.Files {
		if spec.Node.Files[i].Path == path {
			return &spec.Node.Files[i]
		}
	}
	return nil
}

func TestASimulatedNodeOffersItsGPUs(t *testing.T) {
	g := shape.Default().Kwok[0]
	got := node.Capacity(g)
	for resource, want := range map[string]string{"cpu": "96", "memory": "1152Gi", "pods": "110", "nvidia.com/gpu": "8"} {
		if got := got[corev1.ResourceName(resource)]; got != want {
			t.Errorf("capacity of %s is %q, want %q", resource, got, want)
		}
	}
}
