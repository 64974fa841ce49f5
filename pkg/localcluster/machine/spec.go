// SPDX-License-Identifier: Apache-2.0

// Package machine runs one machine of a local cluster: a process tree headed by
// a small init in its own PID and mount namespaces, and for a node in its own
// network, IPC and UTS namespaces as well. Killing the init is losing the machine: the kernel
// takes every process, container, mount and interface below it away.
//
// The init is the calling program itself, started again under the name Argv0;
// this package's initialisation recognises that name. It learns what to do from
// a Spec on its standard input, supervises the services named there, and takes
// orders over HTTP on a Unix socket (type Client).
package machine

import (
	"net/netip"

	"github.com/spotbench/spotbench/pkg/localcluster/network"
)

// Argv0 is the name of every machine's init in the process table, followed by
// the names of the cluster and of the machine.
const Argv0 = "spotbench-machine"

// Spec is everything an init needs to know.
type Spec struct {
	// Socket is the path of the control socket on the host.
	Socket string `json:"socket"`
	// LogDir holds one file per service on the host.
	LogDir string `json:"logDir"`
	// Services are started in order.
	Services []Service `json:"services"`
	// Node is set for a machine with a root and a network of its own.
	Node *NodeSpec `json:"node,omitempty"`
}

// Service is one supervised program.
type Service struct {
	Name string `json:"name"`
	// Program is the file to run; empty for Args[0], looked up in PATH.
	Program string `json:"program,omitempty"`
	// Args are the program's name and arguments.
	Args []string `json:"args"`
	// Env is added to the machine's environment.
	Env []string `json:"env,omitempty"`
	// Held services wait for an order to start.
	Held bool `json:"held,omitempty"`
}

// NodeSpec describes what makes a machine a node.
type NodeSpec struct {
	Hostname string `json:"hostname"`
	// Plan, Index and Nodes place the node in the cluster's network.
	Plan  network.Plan `json:"plan"`
	Index int          `json:"index"`
	Nodes int          `json:"nodes"`
	// Metadata is the address of the cloud's metadata service.
	Metadata netip.Addr `json:"metadata"`
	// StagingDir is an empty directory on the host to build the root on.
	StagingDir string `json:"stagingDir"`
	// DiskDir is the node's disk on the host; DiskPaths are kept there and not
	// in memory.
	DiskDir   string   `json:"diskDir"`
	DiskPaths []string `json:"diskPaths"`
	// Binds are host paths shown at the same path inside, read-only.
	Binds []string `json:"binds"`
	// Files are written into the node's root before anything starts.
	Files []File `json:"files"`
}

// File is one file of a node.
type File struct {
	Path    string `json:"path"`
	Content []byte `json:"content"`
	// Mode of the file, 0600 if 0.
	Mode uint32 `json:"mode,omitempty"`
}

// ServiceStatus is what an init reports about a service.
type ServiceStatus struct {
	Name string `json:"name"`
	// PID in the machine's namespace; 0 when it does not run.
	PID      int `json:"pid"`
	Restarts int `json:"restarts"`
	// LastExit says how it ended last, empty if it never did.
	LastExit string `json:"lastExit,omitempty"`
}
