// SPDX-License-Identifier: Apache-2.0

// Package localcluster runs a real Kubernetes cluster on one Linux machine: real
// etcd, API server, controller-manager and scheduler, and real nodes, each a
// process tree in its own network, mount, PID, IPC and UTS namespaces with
// containerd, kubelet and kube-proxy. Nodes can get a spot notice, be cut off, or
// be taken away. GPUs and the cloud around the nodes are simulated.
//
// A program that uses this package is started again, under other names, as the
// init of the machines and as the nodes' device plugin; its main does not run then.
package localcluster

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"

	"github.com/spotbench/spotbench/pkg/localcluster/shape"
)

// DefaultName is the name of a cluster that was not given one.
const DefaultName = "default"

// Options say what cluster to start.
type Options struct {
	// Name tells clusters apart; DefaultName if empty.
	Name string
	// Shape of the cluster; shape.Default if it has no nodes.
	Shape shape.Shape
	// CacheDir keeps programs and images; DefaultCacheDir if empty.
	CacheDir string
	// NVMLLibrary is the simulated libnvidia-ml.so.1 to put on GPU nodes. If
	// empty, or if there is no such file, they have no driver.
	NVMLLibrary string
	// NetworkPolicies lets every node enforce NetworkPolicies, as a cluster's network
	// plugin does (kube-router's firewall). Without it they are objects only.
	NetworkPolicies bool
	// Progress gets a line for every step; nil for none.
	Progress io.Writer
}

// DefaultCacheDir is spotbench under the user's cache directory.
func DefaultCacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a cache directory: %w: name one with --cache", err)
	}
	return filepath.Join(dir, "spotbench"), nil
}

// ErrNotUp says that there is no such cluster, or not a complete one.
var ErrNotUp = errors.New("the cluster is not up")

var namePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

func checkName(name string) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("cluster name %q: want 1 to 32 lower-case letters, digits and dashes, for example demo", name)
	}
	return nil
}

func (o *Options) complete() error {
	if o.Name == "" {
		o.Name = DefaultName
	}
	if err := checkName(o.Name); err != nil {
		return err
	}
	if len(o.Shape.Nodes) == 0 {
		kwok := o.Shape.Kwok
		o.Shape = shape.Default()
		if kwok != nil {
			o.Shape.Kwok = kwok
		}
	}
	if o.CacheDir == "" {
		dir, err := DefaultCacheDir()
		if err != nil {
			return err
		}
		o.CacheDir = dir
	}
	dir, err := filepath.Abs(o.CacheDir)
	if err != nil {
		return fmt.Errorf("cache directory %q: %w", o.CacheDir, err)
	}
	o.CacheDir = dir
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	return nil
}
