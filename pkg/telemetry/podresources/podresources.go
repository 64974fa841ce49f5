// SPDX-License-Identifier: Apache-2.0

// Package podresources asks the kubelet which pod holds which GPU.
package podresources

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	podresourcesv1 "k8s.io/kubelet/pkg/apis/podresources/v1"
)

// Socket is where the kubelet serves the API.
const Socket = "/var/lib/kubelet/pod-resources/kubelet.sock"

// Holder is the container that a GPU, or a share of it, is allocated to.
type Holder struct {
	Namespace, Pod, Container string
	// Replica is the number of the share where a GPU is shared by time-slicing or
	// MPS, "" where the GPU is the container's own.
	Replica string
}

// Client asks one kubelet.
type Client struct {
	conn *grpc.ClientConn
	api  podresourcesv1.PodResourcesListerClient
}

// Dial prepares a client for the socket; nothing is sent until Holders is called.
func Dial(socket string) (*Client, error) {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("pod resources socket %s: %w", socket, err)
	}
	return &Client{conn: conn, api: podresourcesv1.NewPodResourcesListerClient(conn)}, nil
}

// Close closes the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Holders maps each allocated device to the containers that hold it; only a shared
// one has several. A device is known by its UUID, or by the name of its device file
// where the device plugin calls it so: "nvidia0", and "nvidia0/gi3" for a MIG instance.
func (c *Client) Holders(ctx context.Context) (map[string][]Holder, error) {
	resp, err := c.api.List(ctx, &podresourcesv1.ListPodResourcesRequest{})
	if err != nil {
		return nil, fmt.Errorf("list pod resources: %w", err)
	}
	holders := map[string][]Holder{}
	for _, pod := range resp.GetPodResources() {
		for _, container := range pod.GetContainers() {
			hold := func(device, replica string) {
				holders[device] = append(holders[device], Holder{pod.GetNamespace(), pod.GetName(), container.GetName(), replica})
			}
			for _, devices := range container.GetDevices() {
				if !isGPU(devices.GetResourceName()) {
					continue
				}
				for _, id := range devices.GetDeviceIds() {
					hold(share(id))
				}
			}
			for _, claim := range container.GetDynamicResources() {
				for _, resource := range claim.GetClaimResources() {
					// NVIDIA's driver calls a GPU by its device file's number.
					if minor, ok := strings.CutPrefix(resource.GetDeviceName(), "gpu-"); ok && resource.GetDriverName() == "gpu.nvidia.com" {
						hold("nvidia"+minor, "")
					}
				}
			}
		}
	}
	return holders, nil
}

func isGPU(resource string) bool {
	return resource == "nvidia.com/gpu" || resource == "nvidia.com/gpu.shared" || strings.HasPrefix(resource, "nvidia.com/mig-")
}

// share splits what a device plugin calls a share of a device: NVIDIA's "UUID::3",
// GKE's "nvidia0/vgpu3".
func share(id string) (device, replica string) {
	if device, replica, ok := strings.Cut(id, "::"); ok {
		return device, replica
	}
	if device, replica, ok := strings.Cut(id, "/vgpu"); ok {
		return device, replica
	}
	return id, ""
}
