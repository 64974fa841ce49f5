// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package upstream_test runs other people's controllers, as they are released, against
// the API server of a local cluster with our manifests, and looks at what they do.
package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/spotbench/spotbench/pkg/localcluster"
	"github.com/spotbench/spotbench/pkg/localcluster/shape"
	"github.com/spotbench/spotbench/pkg/localcluster/toolchain"
	"github.com/spotbench/spotbench/pkg/manifest"
	"github.com/spotbench/spotbench/pkg/manifest/upstream"
)

const (
	clusterName = "e2e-upstream"
	manifests   = "../../manifests"
)

// nodes are one that is real, one that is simulated, with a GPU that no test wants, and
// one for a database.
const nodes = `
gpuModels:
  l4: {product: NVIDIA-L4, name: NVIDIA L4, memoryMiB: 23034, family: ada-lovelace, compute: "8.9"}
nodes:
- {name: system-0, instanceType: m7i.2xlarge, zone: us-east-1a, capacityType: on-demand, labels: {node-role.spotbench.dev/system: "true"}}
kwok:
- {name: l4, count: 1, instanceType: g6.12xlarge, zone: us-east-1b, capacityType: on-demand, gpu: {model: l4, count: 8}, capacity: {cpu: "48", memory: 192Gi}}
- {name: db, count: 1, instanceType: m7i.4xlarge, zone: us-east-1b, capacityType: on-demand, capacity: {cpu: "16", memory: 64Gi}, taints: ["simulated=true:NoSchedule"]}
`

// What all tests share.
var (
	cluster *localcluster.Cluster
	cache   string
	// admin may do everything.
	admin client.Client
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) (code int) {
	if err := localcluster.Check(); err != nil {
		fmt.Println("SKIP: the end-to-end tests need the local cluster:", err)
		return 0
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	defer func() {
		if err := localcluster.Down(clusterName, io.Discard); err != nil {
			fmt.Println("FAIL: remove the cluster:", err)
			code = 1
		}
	}()
	if err := start(ctx); err != nil {
		fmt.Println("FAIL: start the cluster:", err)
		return 1
	}
	return m.Run()
}

func start(ctx context.Context) error {
	parsed, err := shape.Parse([]byte(nodes))
	if err != nil {
		return err
	}
	if cache, err = localcluster.DefaultCacheDir(); err != nil {
		return err
	}
	if err := localcluster.Down(clusterName, io.Discard); err != nil {
		return err
	}
	if cluster, err = localcluster.Up(ctx, localcluster.Options{Name: clusterName, Shape: parsed, Progress: os.Stdout}); err != nil {
		return err
	}
	config := cluster.RESTConfig()
	config.QPS, config.Burst = 500, 500
	config.WarningHandler = rest.NoWarnings{}
	kinds := runtime.NewScheme()
	if err := scheme.AddToScheme(kinds); err != nil {
		return err
	}
	if admin, err = client.New(config, client.Options{Scheme: kinds}); err != nil {
		return err
	}
	return install(ctx)
}

// installed are the kinds of our manifests that tests need on the cluster: all but
// our workloads, of which the scheduler runs beside it.
var installed = []string{"Namespace", "CustomResourceDefinition", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "PriorityClass",
	"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"}

// install the definitions of all custom resources and what our manifests have.
func install(ctx context.Context) error {
	crds, err := upstream.CRDs(ctx)
	if err != nil {
		return err
	}
	for _, crd := range crds {
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(crd)
		if err != nil {
			return err
		}
		if err := apply(ctx, &unstructured.Unstructured{Object: content}); err != nil {
			return err
		}
	}
	var objects []manifest.Object
	for _, dir := range []string{"overlays/local", "base/affinity", "demo"} {
		more, err := manifest.Build(filepath.Join(manifests, dir))
		if err != nil {
			return err
		}
		objects = append(objects, more...)
	}
	for _, kind := range installed { // in this order
		for i := range objects {
			if objects[i].GetKind() == kind {
				if err := apply(ctx, &objects[i].Unstructured); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// apply by server-side apply.
func apply(ctx context.Context, o *unstructured.Unstructured) error {
	unstructured.RemoveNestedField(o.Object, "status")
	unstructured.RemoveNestedField(o.Object, "metadata", "creationTimestamp")
	if err := admin.Apply(ctx, client.ApplyConfigurationFromUnstructured(o.DeepCopy()), client.FieldOwner("test"), client.ForceOwnership); err != nil {
		return fmt.Errorf("apply %s %s: %w", o.GetKind(), o.GetName(), err)
	}
	return nil
}

// ofKind are the objects of some kinds that a kustomization has.
func ofKind(t *testing.T, dir string, kinds ...string) []manifest.Object {
	t.Helper()
	objects, err := manifest.Build(filepath.Join(manifests, dir))
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(objects, func(o manifest.Object) bool { return !slices.Contains(kinds, o.GetKind()) })
}

// slow programs take minutes to build, which `make test` does not; `make e2e-upstream`
// does, and once they are there both use them.
var slow = []string{toolchain.CloudNativePG, toolchain.ExternalSecrets, toolchain.Traefik}

// buildsAll is set by `make e2e-upstream`.
const buildsAll = "SPOTBENCH_E2E_UPSTREAM"

// program is the file of an upstream program, built where it is not there yet.
func program(t *testing.T, name string) string {
	t.Helper()
	cached, err := toolchain.Cached(cache)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(cached.Path(name)); err != nil && slices.Contains(slow, name) && os.Getenv(buildsAll) == "" {
		t.Skipf("%s is not built yet: `make e2e-upstream` builds it, in minutes", name)
	}
	if err := toolchain.Fetch(t.Context(), cache, name); err != nil {
		t.Skipf("the modules that %s is built from cannot be had here: %v", name, err)
	}
	set, err := toolchain.Ensure(t.Context(), cache, t.Logf, name)
	if err != nil {
		t.Fatal(err)
	}
	return set.Path(name)
}

// daemon runs a program in a directory, "" for this one, until the test ends; the end of
// its log is shown if that failed.
func daemon(t *testing.T, dir string, env []string, name string, args ...string) {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), filepath.Base(name)+".log"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = file, file
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	var failure error
	ended := make(chan struct{})
	go func() {
		failure = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		select {
		case <-ended:
			t.Errorf("%s ended by itself: %v", filepath.Base(name), failure)
		default:
			cancel()
			<-ended
		}
		cancel()
		if t.Failed() {
			text, _ := os.ReadFile(file.Name())
			t.Logf("the end of the log of %s:\n%s", filepath.Base(name), text[max(0, len(text)-8000):])
		}
		_ = file.Close()
	})
}

// eventually asks until the answer is yes; what the last error said is shown if it never is.
func eventually(t *testing.T, limit time.Duration, what string, ask func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for {
		err := ask(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not after %s: %v", what, limit, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// freePort is a port that nobody listened on a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err := errors.Join(err, l.Close()); err != nil {
		t.Fatal(err)
	}
	return port
}

// object is one with nothing but its kind, for a Get or a List of it.
func object(apiVersion, kind string) *unstructured.Unstructured {
	o := new(unstructured.Unstructured)
	o.SetAPIVersion(apiVersion)
	o.SetKind(kind)
	return o
}

// list the objects of a kind in a namespace, "" for all.
func list(ctx context.Context, apiVersion, kind, namespace string) ([]unstructured.Unstructured, error) {
	l := new(unstructured.UnstructuredList)
	l.SetAPIVersion(apiVersion)
	l.SetKind(kind + "List")
	err := admin.List(ctx, l, client.InNamespace(namespace))
	return l.Items, err
}

// names of objects, for a message.
func names(objects []unstructured.Unstructured) string {
	all := make([]string, len(objects))
	for i := range objects {
		all[i] = objects[i].GetName()
	}
	return strings.Join(all, ", ")
}
