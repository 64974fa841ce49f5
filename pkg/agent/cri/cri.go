// SPDX-License-Identifier: Apache-2.0

// Package cri reaches a pod's containers through the node's container runtime,
// which works also when the API server does not.
package cri

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Socket is containerd's.
const Socket = "/run/containerd/containerd.sock"

// Labels that the kubelet gives to containers.
const (
	labelPodUID    = "io.kubernetes.pod.uid"
	labelContainer = "io.kubernetes.container.name"
)

// ErrNotRunning says that the container does not run (any more).
var ErrNotRunning = errors.New("the container is not running")

// Runtime is the node's container runtime.
type Runtime struct {
	conn *grpc.ClientConn
	api  runtimev1.RuntimeServiceClient
}

// Dial prepares a client for the socket; nothing is sent yet.
func Dial(socket string) (*Runtime, error) {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("container runtime %s: %w", socket, err)
	}
	return &Runtime{conn: conn, api: runtimev1.NewRuntimeServiceClient(conn)}, nil
}

// Close closes the connection.
func (r *Runtime) Close() error { return r.conn.Close() }

// Stopped reports whether the pod's container has ended, and when; the time is zero
// if the runtime has forgotten the container.
func (r *Runtime) Stopped(ctx context.Context, podUID, container string) (time.Time, bool, error) {
	resp, err := r.api.ListContainers(ctx, &runtimev1.ListContainersRequest{Filter: &runtimev1.ContainerFilter{
		LabelSelector: map[string]string{labelPodUID: podUID, labelContainer: container}}})
	if err != nil {
		return time.Time{}, false, fmt.Errorf("list the containers of pod %s: %w", podUID, err)
	}
	// One that was restarted is several containers; the last one counts.
	var last *runtimev1.Container
	for _, c := range resp.GetContainers() {
		if last == nil || c.GetCreatedAt() > last.GetCreatedAt() {
			last = c
		}
	}
	if last == nil {
		return time.Time{}, true, nil
	}
	if last.GetState() != runtimev1.ContainerState_CONTAINER_EXITED {
		return time.Time{}, false, nil
	}
	status, err := r.api.ContainerStatus(ctx, &runtimev1.ContainerStatusRequest{ContainerId: last.GetId()})
	if err != nil {
		return time.Time{}, true, nil //nolint:nilerr // removed since; it has ended all the same
	}
	return time.Unix(0, status.GetStatus().GetFinishedAt()), true, nil
}

// Exec runs a command in the pod's container and waits for it. A command that
// fails is an error with the end of what it printed.
func (r *Runtime) Exec(ctx context.Context, podUID, container string, command []string) error {
	id, err := r.find(ctx, podUID, container)
	if err != nil {
		return err
	}
	timeout := int64(60)
	if deadline, ok := ctx.Deadline(); ok {
		timeout = max(1, int64(time.Until(deadline).Seconds()))
	}
	resp, err := r.api.ExecSync(ctx, &runtimev1.ExecSyncRequest{ContainerId: id, Cmd: command, Timeout: timeout})
	if err != nil {
		return fmt.Errorf("run %q in container %s: %w", command, container, err)
	}
	if resp.GetExitCode() != 0 {
		return fmt.Errorf("%q in container %s ended with exit code %d: %s", command, container, resp.GetExitCode(), tail(append(resp.GetStdout(), resp.GetStderr()...)))
	}
	return nil
}

// Signal sends a signal to the first process of the pod's container. It needs the
// node's process namespace.
func (r *Runtime) Signal(ctx context.Context, podUID, container string, signal syscall.Signal) error {
	id, err := r.find(ctx, podUID, container)
	if err != nil {
		return err
	}
	resp, err := r.api.ContainerStatus(ctx, &runtimev1.ContainerStatusRequest{ContainerId: id, Verbose: true})
	if err != nil {
		return fmt.Errorf("status of container %s: %w", container, err)
	}
	var info struct {
		Pid int `json:"pid"`
	}
	if err := json.Unmarshal([]byte(resp.GetInfo()["info"]), &info); err != nil || info.Pid <= 1 {
		return fmt.Errorf("the runtime does not say which process container %s is (%w)", container, err)
	}
	if err := syscall.Kill(info.Pid, signal); err != nil {
		return fmt.Errorf("send %s to process %d of container %s: %w", signal, info.Pid, container, err)
	}
	return nil
}

// Stop stops the pod's container as the kubelet would: SIGTERM, and SIGKILL after
// the grace period. It is for when the API server cannot be told to evict the pod.
func (r *Runtime) Stop(ctx context.Context, podUID, container string, grace time.Duration) error {
	id, err := r.find(ctx, podUID, container)
	if err != nil {
		return err
	}
	if _, err := r.api.StopContainer(ctx, &runtimev1.StopContainerRequest{ContainerId: id, Timeout: int64(grace.Seconds())}); err != nil {
		return fmt.Errorf("stop container %s: %w", container, err)
	}
	return nil
}

// Version is what the runtime calls itself, and its version.
func (r *Runtime) Version(ctx context.Context) (name, version string, err error) {
	resp, err := r.api.Version(ctx, &runtimev1.VersionRequest{})
	if err != nil {
		return "", "", fmt.Errorf("version of the container runtime: %w", err)
	}
	return resp.GetRuntimeName(), resp.GetRuntimeVersion(), nil
}

// Memory is how many bytes the pod's container has in use.
func (r *Runtime) Memory(ctx context.Context, podUID, container string) (int64, error) {
	id, err := r.find(ctx, podUID, container)
	if err != nil {
		return 0, err
	}
	resp, err := r.api.ContainerStats(ctx, &runtimev1.ContainerStatsRequest{ContainerId: id})
	if err != nil {
		return 0, fmt.Errorf("memory of container %s: %w", container, err)
	}
	used := resp.GetStats().GetMemory().GetWorkingSetBytes().GetValue()
	if used == 0 {
		return 0, fmt.Errorf("the runtime does not say how much memory container %s uses", container)
	}
	return int64(used), nil //nolint:gosec // no machine has that much
}

// Checkpoint writes the pod's container with all that it has in memory to a file, which
// the runtime makes and the container survives. It is what the kubelet's checkpoint
// endpoint asks the runtime for as well; asked directly, it works without the API server.
func (r *Runtime) Checkpoint(ctx context.Context, podUID, container, to string) error {
	id, err := r.find(ctx, podUID, container)
	if err != nil {
		return err
	}
	timeout := int64(60)
	if deadline, ok := ctx.Deadline(); ok {
		timeout = max(1, int64(time.Until(deadline).Seconds()))
	}
	if _, err := r.api.CheckpointContainer(ctx, &runtimev1.CheckpointContainerRequest{ContainerId: id, Location: to, Timeout: timeout}); err != nil {
		return fmt.Errorf("checkpoint container %s: %w", container, err)
	}
	return nil
}

func (r *Runtime) find(ctx context.Context, podUID, container string) (string, error) {
	resp, err := r.api.ListContainers(ctx, &runtimev1.ListContainersRequest{Filter: &runtimev1.ContainerFilter{
		State:         &runtimev1.ContainerStateValue{State: runtimev1.ContainerState_CONTAINER_RUNNING},
		LabelSelector: map[string]string{labelPodUID: podUID, labelContainer: container},
	}})
	if err != nil {
		return "", fmt.Errorf("list the containers of pod %s: %w", podUID, err)
	}
	if len(resp.GetContainers()) == 0 {
		return "", fmt.Errorf("container %s of pod %s: %w", container, podUID, ErrNotRunning)
	}
	return resp.GetContainers()[0].GetId(), nil
}

func tail(output []byte) string {
	const limit = 500
	output = bytes.TrimSpace(output)
	return string(output[max(0, len(output)-limit):])
}
