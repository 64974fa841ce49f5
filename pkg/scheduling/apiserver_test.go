// SPDX-License-Identifier: Apache-2.0

package scheduling_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kuberuntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/kubernetes"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/component-base/configz"
	featuregatetesting "k8s.io/component-base/featuregate/testing"
	"k8s.io/kubernetes/cmd/kube-scheduler/app"
	"k8s.io/kubernetes/cmd/kube-scheduler/app/options"
	"k8s.io/kubernetes/pkg/features"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	podgroups "sigs.k8s.io/scheduler-plugins/apis/scheduling/v1alpha1"

	"github.com/spotbench/spotbench/pkg/localcluster/apiservertest"
	"github.com/spotbench/spotbench/pkg/scheduling"
)

// realCluster is the real scheduler as it is shipped, with its own roles and no
// others, over a real API server.
type realCluster struct {
	cluster
	// admin may do everything, with any kind of object.
	admin client.Client
	// kubeconfig is a file with admin's credentials.
	kubeconfig string
	env        *envtest.Environment
	// programs has the files NAME.pid of the control plane.
	programs string
}

// startRealCluster runs the scheduler in this process.
func startRealCluster(t *testing.T, nodes ...*v1.Node) *realCluster {
	t.Helper()
	c := startControlPlane(t, nodes...)
	kubeconfig, err := c.schedulerUser().KubeConfig()
	if err != nil {
		t.Fatal(err)
	}
	c.startScheduler(c.write("scheduler.kubeconfig", kubeconfig))
	return c
}

// startControlPlane starts an API server with the scheduler's roles, and no scheduler.
// It skips the test where the programs of the local cluster are not built
// (`localcluster build`).
func startControlPlane(t *testing.T, nodes ...*v1.Node) *realCluster {
	t.Helper()
	env := &envtest.Environment{CRDDirectoryPaths: []string{manifests + "podgroup-crd.yaml"}, ErrorIfCRDPathMissing: true, ControlPlaneStartTimeout: time.Minute}
	programs := t.TempDir()
	for variable, program := range apiservertest.Programs(t) {
		// envtest finds programs so, and does not tell which processes they are.
		script := filepath.Join(programs, filepath.Base(program))
		text := fmt.Sprintf("#!/bin/sh\necho $$ > %s.pid\nexec %s \"$@\"\n", script, program)
		if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
		t.Setenv(variable, script)
	}
	// A folder of its own, which outlives a restart.
	env.ControlPlane.GetAPIServer().CertDir = t.TempDir()
	config, err := env.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := env.Stop(); err != nil {
			t.Error(err)
		}
	})
	kinds := kuberuntime.NewScheme()
	if err := errors.Join(clientscheme.AddToScheme(kinds), podgroups.AddToScheme(kinds)); err != nil {
		t.Fatal(err)
	}
	admin, err := client.New(config, client.Options{Scheme: kinds})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	c := &realCluster{cluster: cluster{t: t, ctx: ctx, client: kubernetes.NewForConfigOrDie(config)}, admin: admin, env: env, programs: programs}
	c.kubeconfig = c.write("admin.kubeconfig", env.KubeConfig)
	c.apply(&v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "spotbench-system"}})
	c.applyFile(manifests + "rbac.yaml")
	for _, n := range nodes {
		c.addNode(n)
	}
	return c
}

// loseAPIServer kills the API server and starts it again after a time.
func (c *realCluster) loseAPIServer(away time.Duration) {
	c.t.Helper()
	text, err := os.ReadFile(filepath.Join(c.programs, "kube-apiserver.pid"))
	if err != nil {
		c.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		c.t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		c.t.Fatal(err)
	}
	time.Sleep(away)
	if err := c.env.ControlPlane.GetAPIServer().Start(); err != nil {
		c.t.Fatal(err)
	}
}

func (c *realCluster) write(name string, data []byte) string {
	c.t.Helper()
	file := filepath.Join(c.t.TempDir(), name)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		c.t.Fatal(err)
	}
	return file
}

// startScheduler runs kube-scheduler's own command with our plugins.
func (c *realCluster) startScheduler(kubeconfig string) {
	c.t.Helper()
	file := shippedConfig(c.t)
	data, err := os.ReadFile(file)
	if err != nil {
		c.t.Fatal(err)
	}
	text := strings.Replace(string(data), "leaderElect: true", "leaderElect: false", 1)
	text = strings.Replace(text, "clientConnection:\n", "clientConnection:\n  kubeconfig: "+kubeconfig+"\n", 1)
	// With it, the queue of 1.34 reads a pod that it may just have handed out: a data
	// race of its own, which the detector would put down to these tests.
	featuregatetesting.SetFeatureGateDuringTest(c.t, utilfeature.DefaultFeatureGate, features.SchedulerPopFromBackoffQ, false)
	opts := options.NewOptions()
	opts.ConfigFile = c.write("config.yaml", []byte(text))
	opts.SecureServing.BindPort = 0 // serves nothing
	opts.Authentication, opts.Authorization = nil, nil
	config, scheduler, err := app.Setup(c.ctx, opts,
		app.WithPlugin(scheduling.Name, scheduling.New), app.WithPlugin(scheduling.ResourcesName, scheduling.NewResources), app.WithPlugin(scheduling.GangsName, scheduling.NewGangs))
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(c.ctx)
	done := make(chan error, 1)
	go func() { done <- app.Run(ctx, config, scheduler) }()
	c.t.Cleanup(func() {
		cancel()
		defer configz.Delete("componentconfig") // where the next scheduler of this process registers
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) && !strings.Contains(err.Error(), "finished without leader elect") {
			c.t.Error("the scheduler ended with:", err)
		}
	})
}

// apply creates an object.
func (c *realCluster) apply(object client.Object) {
	c.t.Helper()
	if err := c.admin.Create(c.ctx, object); err != nil {
		c.t.Fatalf("create %T %s: %v", object, object.GetName(), err)
	}
}

// applyFile creates the objects of a manifest.
func (c *realCluster) applyFile(file string) {
	c.t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		c.t.Fatal(err)
	}
	for documents := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096); ; {
		var object unstructured.Unstructured
		if err := documents.Decode(&object.Object); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			c.t.Fatalf("%s: %v", file, err)
		}
		c.apply(&object)
	}
}

// addNode creates a node as its kubelet and the node controller would.
func (c *realCluster) addNode(n *v1.Node) {
	c.t.Helper()
	n = n.DeepCopy()
	status, taints := n.Status, n.Spec.Taints
	c.apply(n)
	n.Status = status
	if err := c.admin.Status().Update(c.ctx, n); err != nil {
		c.t.Fatal(err)
	}
	// Admission taints every new node as not ready.
	n.Spec.Taints = taints
	if err := c.admin.Update(c.ctx, n); err != nil {
		c.t.Fatal(err)
	}
}
