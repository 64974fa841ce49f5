// SPDX-License-Identifier: Apache-2.0

// Package toolchain builds the programs a local cluster consists of from pinned
// Go modules, and installs the Debian packages it needs. Each program is built
// once and kept in a cache directory under a key of everything it is made of.
package toolchain

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

//go:embed modules
var modules embed.FS

// KubernetesVersion is the release of every Kubernetes component.
const KubernetesVersion = "v1.34.4"

// Tool is a program built from a pinned module.
type Tool struct {
	// Name of the program.
	Name string
	// Version of the module it comes from.
	Version string
	// module names the .mod and .sum files that pin it.
	module string
	// pkg is the Go package to build.
	pkg string
	// ldflags beside -s -w.
	ldflags []string
	// lacks are files that the module should have: path in the module, name of the
	// embedded file.
	lacks map[string]string
}

func kubernetes(name string) Tool {
	const version = "k8s.io/component-base/version."
	return Tool{
		Name: name, Version: KubernetesVersion, module: "kubernetes", pkg: "k8s.io/kubernetes/cmd/" + name,
		// Other programs parse these; a build without them says v0.0.0.
		ldflags: []string{
			"-X", version + "gitVersion=" + KubernetesVersion,
			"-X", version + "gitMajor=1", "-X", version + "gitMinor=34", "-X", version + "gitTreeState=clean",
		},
	}
}

const argoModule = "github.com/argoproj/argo-workflows/v3"

func argo(name string) Tool {
	return Tool{
		Name: name, Version: "v3.7.4", module: "argo-workflows", pkg: argoModule + "/cmd/" + name,
		ldflags: []string{"-X", argoModule + ".version=v3.7.4", "-X", argoModule + ".gitTag=v3.7.4", "-X", argoModule + ".gitTreeState=clean"},
	}
}

// argoexec is built from a module that was published without one of its files.
func argoexec() Tool {
	t := argo(Argoexec)
	t.lacks = map[string]string{"workflow/executor/osspecific/signal_linux.go": "argo-workflows.signal_linux"}
	return t
}

// Tools are the programs of a cluster, the optional ones among them.
func Tools() []Tool {
	return []Tool{
		{Name: "etcd", Version: "v3.6.4", module: "etcd", pkg: "go.etcd.io/etcd/server/v3"},
		kubernetes("kube-apiserver"),
		kubernetes("kube-controller-manager"),
		kubernetes("kube-scheduler"),
		kubernetes("kubelet"),
		kubernetes("kube-proxy"),
		kubernetes("kubectl"),
		{Name: "coredns", Version: "v1.12.4", module: "coredns", pkg: "."},
		{Name: "ec2-metadata-mock", Version: "v1.13.0", module: "ec2-metadata-mock", pkg: "github.com/aws/amazon-ec2-metadata-mock/cmd/ec2-metadata-mock"},
		{Name: Kwok, Version: "v0.7.0", module: Kwok, pkg: "sigs.k8s.io/kwok/cmd/kwok"},
		{Name: KubeRouter, Version: "v2.1.0", module: KubeRouter, pkg: "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router"},
		{Name: MetricsServer, Version: "v0.8.0", module: MetricsServer, pkg: "sigs.k8s.io/metrics-server/cmd/metrics-server"},
		{Name: Prometheus, Version: "v3.5.0", module: Prometheus, pkg: "github.com/prometheus/prometheus/cmd/prometheus",
			ldflags: []string{"-X", "github.com/prometheus/common/version.Version=3.5.0"}},
		{Name: MinIO, Version: "RELEASE.2026-02-12", module: MinIO, pkg: "github.com/minio/minio"},
		argo(WorkflowController),
		argoexec(),
		{Name: Karpenter, Version: "v1.8.0", module: Karpenter, pkg: "sigs.k8s.io/karpenter/kwok"},
		{Name: CloudNativePG, Version: "v1.26.0", module: CloudNativePG, pkg: "github.com/cloudnative-pg/cloudnative-pg/cmd/manager",
			ldflags: []string{"-X", "github.com/cloudnative-pg/cloudnative-pg/pkg/versions.buildVersion=1.26.0"}},
		{Name: ExternalSecrets, Version: "v0.19.2", module: ExternalSecrets, pkg: "github.com/external-secrets/external-secrets"},
		{Name: Traefik, Version: "v3.6.0", module: Traefik, pkg: "github.com/traefik/traefik/v3/cmd/traefik"},
	}
}

// Programs that only some clusters need: kwok simulates nodes, kube-router enforces
// network policies, Karpenter is the autoscaler with its simulated cloud, CloudNativePG an
// operator of PostgreSQL, External Secrets one of Secrets, and Traefik a gateway; in pods
// run the metrics server for autoscaling, Prometheus (that of Debian cannot find pods),
// MinIO as an S3 server, Argo Workflows' controller and the executor of its workflows.
const (
	Kwok               = "kwok"
	KubeRouter         = "kube-router"
	MetricsServer      = "metrics-server"
	Prometheus         = "prometheus"
	MinIO              = "minio"
	WorkflowController = "workflow-controller"
	Argoexec           = "argoexec"
	Karpenter          = "karpenter"
	CloudNativePG      = "cnpg"
	ExternalSecrets    = "external-secrets"
	Traefik            = "traefik"
)

var optional = []string{
	Kwok, KubeRouter, MetricsServer, Prometheus, MinIO, WorkflowController, Argoexec,
	Karpenter, CloudNativePG, ExternalSecrets, Traefik,
}

// Set is a complete set of programs.
type Set struct {
	// Dir is the cache directory that holds them all.
	Dir   string
	paths map[string]string
}

// Path is the file of the program of that name.
func (s *Set) Path(name string) string { return s.paths[name] }

// Progress is told what happens, one line at a time.
type Progress func(format string, args ...any)

// Cached is the set of programs as far as they are in the cache; it builds none.
func Cached(cache string) (*Set, error) {
	set := &Set{Dir: filepath.Join(cache, "toolchain"), paths: map[string]string{}}
	for _, t := range Tools() {
		key, err := t.key()
		if err != nil {
			return nil, err
		}
		set.paths[t.Name] = filepath.Join(set.Dir, key, t.Name)
	}
	return set, nil
}

// Ensure builds the programs that are not in the cache yet, and of the optional
// ones those that are named. A program appears in the cache only when it is whole,
// so an interrupted build is simply repeated.
func Ensure(ctx context.Context, cache string, progress Progress, with ...string) (*Set, error) {
	dir := filepath.Join(cache, "toolchain")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the cache directory: %w", err)
	}
	set, err := Cached(cache)
	if err != nil {
		return nil, err
	}
	tools := slices.DeleteFunc(Tools(), func(t Tool) bool { return slices.Contains(optional, t.Name) && !slices.Contains(with, t.Name) })
	var missing []Tool
	for _, t := range tools {
		if _, err := os.Stat(set.paths[t.Name]); err != nil {
			missing = append(missing, t)
		}
	}
	if len(missing) == 0 {
		return set, nil
	}
	unlock, err := lock(filepath.Join(dir, ".lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	for i, t := range missing {
		target := set.paths[t.Name]
		if _, err := os.Stat(target); err == nil {
			continue // built by somebody else while we waited for the lock
		}
		progress("building %s %s (%d/%d)", t.Name, t.Version, i+1, len(missing))
		start := time.Now()
		if err := t.build(ctx, target); err != nil {
			return nil, err
		}
		progress("built %s in %s", t.Name, time.Since(start).Round(time.Second))
	}
	return set, nil
}

// key names everything that decides what the program is.
func (t Tool) key() (string, error) {
	h := sha256.New()
	for _, file := range []string{t.module + ".mod", t.module + ".sum", t.module + ".main"} {
		data, err := modules.ReadFile("modules/" + file)
		if errors.Is(err, os.ErrNotExist) && strings.HasSuffix(file, ".main") {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("the embedded module %s: %w", file, err)
		}
		h.Write(data)
	}
	for _, path := range slices.Sorted(maps.Keys(t.lacks)) {
		data, err := modules.ReadFile("modules/" + t.lacks[path])
		if err != nil {
			return "", fmt.Errorf("the embedded file for %s: %w", path, err)
		}
		fmt.Fprintln(h, path)
		h.Write(data)
	}
	fmt.Fprintln(h, t.pkg, t.ldflags, runtime.GOOS, runtime.GOARCH)
	return fmt.Sprintf("%s-%s-%s", t.module, t.Version, hex.EncodeToString(h.Sum(nil))[:8]), nil
}

// Fetch downloads the modules that the program is built from, where it is not in the
// cache yet: an error means that they cannot be had here.
func Fetch(ctx context.Context, cache, name string) error {
	set, err := Cached(cache)
	if err != nil {
		return err
	}
	if _, err := os.Stat(set.Path(name)); err == nil {
		return nil
	}
	i := slices.IndexFunc(Tools(), func(t Tool) bool { return t.Name == name })
	if i < 0 {
		return fmt.Errorf("there is no program %s", name)
	}
	t := Tools()[i]
	work, err := os.MkdirTemp("", "spotbench-fetch-")
	if err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	defer os.RemoveAll(work)
	if err := t.unpack(work); err != nil {
		return err
	}
	_, err = t.run(ctx, work, "list", "-mod=readonly", "-deps", t.pkg)
	return err
}

func (t Tool) build(ctx context.Context, target string) error {
	work, err := os.MkdirTemp("", "spotbench-build-")
	if err != nil {
		return fmt.Errorf("make a build directory: %w", err)
	}
	defer os.RemoveAll(work)
	if err := t.unpack(work); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return fmt.Errorf("make the directory of %s: %w", t.Name, err)
	}
	if len(t.lacks) > 0 {
		if err := t.complete(ctx, work); err != nil {
			return err
		}
	}
	out := filepath.Join(work, "out")
	args := []string{"build", "-mod=readonly", "-ldflags", strings.Join(append([]string{"-s", "-w"}, t.ldflags...), " "), "-o", out, t.pkg}
	if _, err := t.run(ctx, work, args...); err != nil {
		return err
	}
	// Beside the target first: a rename within a directory is atomic.
	part := target + ".part"
	if err := copyFile(out, part); err != nil {
		return err
	}
	if err := os.Rename(part, target); err != nil {
		return fmt.Errorf("put %s in the cache: %w", t.Name, err)
	}
	return nil
}

// unpack writes the module that pins the program into the directory.
func (t Tool) unpack(dir string) error {
	for from, to := range map[string]string{".mod": "go.mod", ".sum": "go.sum", ".main": "main.go"} {
		data, err := modules.ReadFile("modules/" + t.module + from)
		if errors.Is(err, os.ErrNotExist) && from == ".main" {
			continue
		}
		if err != nil {
			return fmt.Errorf("the embedded module %s: %w", t.module, err)
		}
		if err := os.WriteFile(filepath.Join(dir, to), data, 0o600); err != nil {
			return fmt.Errorf("write %s of %s: %w", to, t.module, err)
		}
	}
	return nil
}

// complete builds from a copy of the module to which the files that it lacks are
// added: the go command does not let an overlay touch its module cache.
func (t Tool) complete(ctx context.Context, work string) error {
	path, err := t.run(ctx, work, "list", "-mod=readonly", "-f", "{{.Module.Path}}", t.pkg)
	if err != nil {
		return err
	}
	dir, err := t.sources(ctx, work)
	if err != nil {
		return err
	}
	const copied = "module"
	if err := os.CopyFS(filepath.Join(work, copied), os.DirFS(dir)); err != nil {
		return fmt.Errorf("copy the sources of %s: %w", t.module, err)
	}
	for file, name := range t.lacks {
		data, err := modules.ReadFile("modules/" + name)
		if err != nil {
			return fmt.Errorf("the embedded file for %s: %w", file, err)
		}
		if err := os.WriteFile(filepath.Join(work, copied, file), data, 0o600); err != nil {
			return fmt.Errorf("add %s to %s: %w", file, t.module, err)
		}
	}
	_, err = t.run(ctx, work, "mod", "edit", "-replace", strings.TrimSpace(path)+"=./"+copied)
	return err
}

// sources is the directory of the sources of the program's module. work has been
// unpacked.
func (t Tool) sources(ctx context.Context, work string) (string, error) {
	path, err := t.run(ctx, work, "list", "-mod=readonly", "-f", "{{.Module.Dir}}", t.pkg)
	return strings.TrimSpace(path), err
}

// run runs the go command in the directory and returns what it printed.
func (t Tool) run(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = t.env()
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", fmt.Errorf("build %s: %w", t.Name, ctx.Err())
		}
		return "", fmt.Errorf("build %s with `go %s`: %w\n%s", t.Name, strings.Join(args, " "), err, lastLines(stderr.String(), 20))
	}
	return out.String(), nil
}

// ArgoManifests is the directory of Argo Workflows' own manifests, as its release
// ships them.
func ArgoManifests(ctx context.Context) (string, error) {
	t := argo(WorkflowController)
	work, err := os.MkdirTemp("", "spotbench-build-")
	if err != nil {
		return "", fmt.Errorf("make a build directory: %w", err)
	}
	defer os.RemoveAll(work)
	if err := t.unpack(work); err != nil {
		return "", err
	}
	dir, err := t.sources(ctx, work)
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "manifests"), nil
}

// env is the environment of a build, without what a caller's project may have
// set for itself.
func (t Tool) env() []string {
	env := slices.DeleteFunc(os.Environ(), func(e string) bool {
		return strings.HasPrefix(e, "GOFLAGS=") || strings.HasPrefix(e, "GOWORK=") || strings.HasPrefix(e, "CGO_ENABLED=")
	})
	env = append(env, "GOFLAGS=-buildvcs=false", "GOWORK=off")
	if t.module != "kubernetes" {
		// Kubernetes keeps Go's default, cgo where there is a C compiler; the
		// others need no C library.
		env = append(env, "CGO_ENABLED=0")
	}
	return env
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("read the built program: %w", err)
	}
	if err := os.WriteFile(to, data, 0o755); err != nil {
		return fmt.Errorf("write the built program: %w", err)
	}
	return nil
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
