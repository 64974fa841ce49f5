// SPDX-License-Identifier: Apache-2.0

package podresources_test

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	podresourcesv1 "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/spotbench/spotbench/pkg/telemetry/podresources"
)

// kubelet answers List as a kubelet does, over a real unix socket.
type kubelet struct {
	podresourcesv1.UnimplementedPodResourcesListerServer
	pods []*podresourcesv1.PodResources
}

func (k *kubelet) List(context.Context, *podresourcesv1.ListPodResourcesRequest) (*podresourcesv1.ListPodResourcesResponse, error) {
	return &podresourcesv1.ListPodResourcesResponse{PodResources: k.pods}, nil
}

func serve(t *testing.T, pods ...*podresourcesv1.PodResources) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "kubelet.sock")
	listener, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	podresourcesv1.RegisterPodResourcesListerServer(server, &kubelet{pods: pods})
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return socket
}

func pod(name, resource string, ids ...string) *podresourcesv1.PodResources {
	return &podresourcesv1.PodResources{Namespace: "gpu-workloads", Name: name, Containers: []*podresourcesv1.ContainerResources{
		{Name: "main", Devices: []*podresourcesv1.ContainerDevices{{ResourceName: resource, DeviceIds: ids}}}}}
}

func TestHolders(t *testing.T) {
	holder := func(name string) podresources.Holder {
		return podresources.Holder{Namespace: "gpu-workloads", Pod: name, Container: "main"}
	}
	share := func(name, replica string) podresources.Holder {
		h := holder(name)
		h.Replica = replica
		return h
	}
	one := func(h ...podresources.Holder) []podresources.Holder { return h }
	claim := pod("claimed", "none")
	claim.Containers[0].DynamicResources = []*podresourcesv1.DynamicResource{{ClaimResources: []*podresourcesv1.ClaimResource{
		{DriverName: "gpu.nvidia.com", DeviceName: "gpu-3"}, {DriverName: "net.example.com", DeviceName: "gpu-4"}}}}
	tests := map[string]struct {
		pods []*podresourcesv1.PodResources
		want map[string][]podresources.Holder
	}{
		"nobody holds a GPU on an idle node": {want: map[string][]podresources.Holder{}},
		"a pod of two GPUs holds both": {
			pods: []*podresourcesv1.PodResources{pod("qwen", "nvidia.com/gpu", "GPU-1", "GPU-2")},
			want: map[string][]podresources.Holder{"GPU-1": one(holder("qwen")), "GPU-2": one(holder("qwen"))},
		},
		"a time-sliced GPU is known by its own UUID and held by each of its pods": {
			pods: []*podresourcesv1.PodResources{pod("slice", "nvidia.com/gpu", "GPU-1::3"), pod("other", "nvidia.com/gpu.shared", "GPU-1::0")},
			want: map[string][]podresources.Holder{"GPU-1": one(share("slice", "3"), share("other", "0"))},
		},
		"GKE calls devices and their shares by the device file": {
			pods: []*podresourcesv1.PodResources{pod("gke", "nvidia.com/gpu", "nvidia0"), pod("slice", "nvidia.com/gpu", "nvidia1/vgpu2"), pod("mig", "nvidia.com/gpu", "nvidia2/gi3")},
			want: map[string][]podresources.Holder{"nvidia0": one(holder("gke")), "nvidia1": one(share("slice", "2")), "nvidia2/gi3": one(holder("mig"))},
		},
		"a GPU claimed by a ResourceClaim is held too, another driver's device is not": {
			pods: []*podresourcesv1.PodResources{claim},
			want: map[string][]podresources.Holder{"nvidia3": one(holder("claimed"))},
		},
		"a MIG device counts as a GPU": {
			pods: []*podresourcesv1.PodResources{pod("mig", "nvidia.com/mig-1g.10gb", "MIG-9")},
			want: map[string][]podresources.Holder{"MIG-9": one(holder("mig"))},
		},
		"a network card does not": {
			pods: []*podresourcesv1.PodResources{pod("net", "vendor.example/rdma", "rdma0")},
			want: map[string][]podresources.Holder{},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			client, err := podresources.Dial(serve(t, tt.pods...))
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			got, err := client.Holders(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("holders (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAKubeletThatIsNotThereIsAnError(t *testing.T) {
	client, err := podresources.Dial(filepath.Join(t.TempDir(), "none.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := client.Holders(ctx); err == nil {
		t.Error("no error")
	}
}
