// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"syscall"
	"time"

	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/client-go/tools/record"

	"github.com/spotbench/spotbench/pkg/agent/transparent"
	"github.com/spotbench/spotbench/pkg/apiserver"
	"github.com/spotbench/spotbench/pkg/checkpoint"
	"github.com/spotbench/spotbench/pkg/telemetry"
	"github.com/spotbench/spotbench/pkg/telemetry/monitor"
)

// Checkpoints is the store of checkpoints; checkpoint.Store is one.
type Checkpoints interface {
	Save(ctx context.Context, run, dir string, o checkpoint.SaveOptions) (checkpoint.Saved, error)
	Hold(run, from, to string) error
	Latest(ctx context.Context, run string) (checkpoint.Generation, bool, error)
	Restore(ctx context.Context, run, dir string, o checkpoint.RestoreOptions) (checkpoint.Restored, bool, error)
	Forget(run string)
	Prune(ctx context.Context, run string, dryRun bool) (checkpoint.Pruned, error)
}

// Containers reaches the containers of this node's pods without the API server.
type Containers interface {
	// Stopped says whether a container has ended, and when (zero if that is unknown).
	Stopped(ctx context.Context, podUID, container string) (at time.Time, stopped bool, err error)
	Exec(ctx context.Context, podUID, container string, command []string) error
	Signal(ctx context.Context, podUID, container string, signal syscall.Signal) error
	Stop(ctx context.Context, podUID, container string, grace time.Duration) error
}

// Memories checkpoints containers with all that they have in memory, without their help.
type Memories interface {
	// Node is what the node has of what it takes.
	Node(ctx context.Context) (transparent.Node, error)
	// Memory is how many bytes a container's processes have in use.
	Memory(ctx context.Context, podUID, container string) (int64, error)
	// Checkpoint writes a container's checkpoint to a file; the container goes on.
	Checkpoint(ctx context.Context, podUID, container, to string) error
}

// Cluster is the API server; apiserver.Client is one.
type Cluster interface {
	Nodes() apiserver.Nodes
	Pods(namespace string) apiserver.Pods
	Evict(ctx context.Context, e *policyv1.Eviction) error
	Events() record.EventSink
}

// Telemetry knows what a pod's GPUs did.
type Telemetry interface {
	Summary(pod monitor.Pod) (telemetry.Summary, bool)
	Forget(pod monitor.Pod)
}
