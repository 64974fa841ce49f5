// SPDX-License-Identifier: Apache-2.0

package localcluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/spotbench/spotbench/pkg/localcluster/network"
	"github.com/spotbench/spotbench/pkg/localcluster/shape"
)

// Where clusters keep what: small things that end with the machine's uptime,
// and the nodes' disks.
const (
	runRoot  = "/run/spotbench"
	diskRoot = "/var/lib/spotbench"
)

// state is what a cluster knows about itself; the rest is asked of the kernel.
type state struct {
	Name     string       `json:"name"`
	Plan     network.Plan `json:"plan"`
	Shape    shape.Shape  `json:"shape"`
	CacheDir string       `json:"cacheDir"`
	NVML     string       `json:"nvmlLibrary,omitempty"`
	// NetworkPolicies says that they are enforced.
	NetworkPolicies bool      `json:"networkPolicies,omitempty"`
	CreatedAt       time.Time `json:"createdAt"`
	// Complete is set when the cluster came up wholly.
	Complete bool `json:"complete"`
}

type paths struct{ name string }

func (p paths) run(elem ...string) string {
	return filepath.Join(append([]string{runRoot, p.name}, elem...)...)
}
func (p paths) disk(elem ...string) string {
	return filepath.Join(append([]string{diskRoot, p.name}, elem...)...)
}
func (p paths) state() string                { return p.run("cluster.json") }
func (p paths) kubeconfig() string           { return p.run("kubeconfig") }
func (p paths) pki(elem ...string) string    { return p.run(append([]string{"pki"}, elem...)...) }
func (p paths) socket(machine string) string { return p.run(machine + ".sock") }
func (p paths) logs(machine string) string   { return p.disk("logs", machine) }

func (s *state) save() error {
	out, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the state of cluster %s: %w", s.Name, err)
	}
	path := paths{s.Name}.state()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make the state directory of cluster %s: %w", s.Name, err)
	}
	if err := os.WriteFile(path+".part", out, 0o600); err != nil {
		return fmt.Errorf("write the state of cluster %s: %w", s.Name, err)
	}
	if err := os.Rename(path+".part", path); err != nil {
		return fmt.Errorf("write the state of cluster %s: %w", s.Name, err)
	}
	return nil
}

// load reads a cluster's state; nil without an error if there is none.
func load(name string) (*state, error) {
	data, err := os.ReadFile(paths{name}.state())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // absence is an ordinary answer here
	}
	if err != nil {
		return nil, fmt.Errorf("read the state of cluster %s: %w", name, err)
	}
	var s state
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("read the state of cluster %s: %w", name, err)
	}
	return &s, nil
}

// names lists the clusters that have left any state.
func names() ([]string, error) {
	seen := map[string]bool{}
	var list []string
	for _, root := range []string{runRoot, diskRoot} {
		entries, err := os.ReadDir(root)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("list clusters: %w", err)
		}
		for _, e := range entries {
			if e.IsDir() && !seen[e.Name()] && namePattern.MatchString(e.Name()) {
				seen[e.Name()] = true
				list = append(list, e.Name())
			}
		}
	}
	return list, nil
}

// lockAll makes this process the only one that starts or removes a cluster's
// outer parts. It locks a directory that lives as long as any cluster.
func lockAll() (unlock func(), err error) {
	for {
		if err := os.MkdirAll(runRoot, 0o755); err != nil {
			return nil, fmt.Errorf("make %s: %w", runRoot, err)
		}
		f, err := os.Open(runRoot)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", runRoot, err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", runRoot, err)
		}
		// Whoever held the lock may have removed the directory with its last cluster.
		var held, current unix.Stat_t
		if unix.Fstat(int(f.Fd()), &held) == nil && unix.Stat(runRoot, &current) == nil && held.Ino == current.Ino {
			return func() { _ = f.Close() }, nil
		}
		_ = f.Close()
	}
}
