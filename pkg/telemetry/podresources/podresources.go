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

// Holder is the container that a GPU is allocated to.
type Holder struct{ Namespace, Pod, Container string }

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

// Holders maps each allocated GPU's UUID to the container that holds it.
func (c *Client) Holders(ctx context.Context) (map[string]Holder, error) {
	resp, err := c.api.List(ctx, &podresourcesv1.ListPodResourcesRequest{})
	if err != nil {
		return nil, fmt.Errorf("list pod resources: %w", err)
	}
	holders := map[string]Holder{}
	for _, pod := range resp.GetPodResources() {
		for _, container := range pod.GetContainers() {
			for _, device := range container.GetDevices() {
				if name := device.GetResourceName(); name != "nvidia.com/gpu" && !strings.HasPrefix(name, "nvidia.com/mig-") {
					continue
				}
				for _, id := range device.GetDeviceIds() {
					// Time-sliced GPUs are advertised as "UUID::N".
					uuid, _, _ := strings.Cut(id, "::")
					holders[uuid] = Holder{Namespace: pod.GetNamespace(), Pod: pod.GetName(), Container: container.GetName()}
				}
			}
		}
	}
	return holders, nil
}
