// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package faults_test interrupts benchmarks on a real cluster while something else goes
// wrong, and measures from outside how much work that cost. The worker numbers its steps
// and a ledger hears of each, so that a step that is done twice, or never, shows.
package faults_test

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/spotbench/spotbench/pkg/demo"
	"github.com/spotbench/spotbench/pkg/images"
	"github.com/spotbench/spotbench/pkg/localcluster"
	"github.com/spotbench/spotbench/pkg/localcluster/shape"
)

const (
	workloads = "gpu-workloads"
	// refuge is where interrupted benchmarks go on; it is never interrupted itself.
	refuge      = "refuge-0"
	workerImage = "spotbench.dev/worker:e2e"
	// machines are the spot nodes that tests interrupt.
	machines = 7
)

// What all tests share.
var (
	stage    *demo.Stage
	store    *storeProxy
	steps    *ledger
	pool     *nodePool
	findings *table
	// stageContext ends when the tests are to end.
	stageContext context.Context
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	if err := localcluster.Check(); err != nil {
		fmt.Println("SKIP: the end-to-end tests need the local cluster:", err)
		return 0
	}
	// Most of a test is waiting: as many run at once as there are machines for.
	if err := flag.Set("test.parallel", "16"); err != nil {
		fmt.Println("FAIL:", err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	scratch, err := os.MkdirTemp("", "spotbench-faults-")
	if err != nil {
		fmt.Println("FAIL:", err)
		return 1
	}
	defer os.RemoveAll(scratch)
	findings = &table{}
	defer findings.print(os.Stdout)
	stageContext = ctx
	err = prepare(ctx, scratch)
	if stage != nil {
		defer func() {
			if err := stage.Down(context.WithoutCancel(ctx)); err != nil {
				fmt.Println("remove the cluster:", err)
			}
		}()
	}
	if err != nil {
		fmt.Println("FAIL: install the platform:", err)
		return 1
	}
	return m.Run()
}

func prepare(ctx context.Context, scratch string) error {
	var nodes strings.Builder
	nodes.WriteString("gpuModels:\n  l4: {product: NVIDIA-L4, name: NVIDIA L4, memoryMiB: 23034, family: ada-lovelace, compute: \"8.9\"}\nnodes:\n")
	var names []string
	for i := range machines {
		names = append(names, fmt.Sprintf("spot-%d", i))
		fmt.Fprintf(&nodes, "- {name: spot-%d, instanceType: g6.12xlarge, zone: us-east-1a, capacityType: spot, gpu: {model: l4, count: 8}}\n", i)
	}
	nodes.WriteString("- {name: " + refuge + ", instanceType: g6.12xlarge, zone: us-east-1b, capacityType: on-demand, gpu: {model: l4, count: 32}}\n" +
		"- {name: system-0, instanceType: m7i.2xlarge, zone: us-east-1a, capacityType: on-demand, labels: {node-role.spotbench.dev/system: \"true\"}}\n")
	parsed, err := shape.Parse([]byte(nodes.String()))
	if err != nil {
		return err
	}
	stage, err = demo.Prepare(ctx, demo.Options{Cluster: "e2e-faults", Root: "../..", Output: os.Stdout, Shape: parsed, GPUImages: []string{"node-agent"}, Notice: demo.DefaultNotice})
	if err != nil {
		return err
	}
	pool = newNodePool(names)
	if err := loadWorker(ctx, scratch, append(names, refuge)); err != nil {
		return err
	}
	if err := os.Setenv("AWS_ACCESS_KEY_ID", stage.ObjectStore.AccessKey); err != nil {
		return err
	}
	if err := os.Setenv("AWS_SECRET_ACCESS_KEY", stage.ObjectStore.SecretKey); err != nil {
		return err
	}
	host := stage.Cluster.HostIP().String()
	if steps, err = openLedger(net.JoinHostPort(host, "0")); err != nil {
		return err
	}
	return interpose(ctx, host)
}

// loadWorker builds the worker and puts it on the nodes.
func loadWorker(ctx context.Context, scratch string, nodes []string) error {
	binary := filepath.Join(scratch, "worker")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", binary, "./worker")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the worker: %w\n%s", err, out)
	}
	image := images.Image{Ref: workerImage, Entrypoint: []string{"/worker"}, User: "65532:65532", Entries: []images.Entry{{Path: "/worker", Source: binary, Mode: 0o755}}}
	tar := filepath.Join(scratch, "worker.tar")
	if err := image.Write(tar); err != nil {
		return err
	}
	return stage.Cluster.LoadImagesTo(ctx, nodes, tar)
}

// interpose lets all agents reach the store through the proxy only.
func interpose(ctx context.Context, host string) error {
	service, err := stage.Client.CoreV1().Services("data-storage").Get(ctx, "object-store", metav1.GetOptions{})
	if err != nil {
		return err
	}
	store = newStoreProxy(&url.URL{Scheme: "http", Host: net.JoinHostPort(service.Spec.ClusterIP, "9000")})
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return err
	}
	store.serve(listener)
	// Container checkpoints are on in all tests: where they are refused, and where they
	// are not, nothing else may suffer.
	patch := fmt.Sprintf(`{"spec":{"updateStrategy":{"rollingUpdate":{"maxUnavailable":"100%%"}},"template":{"spec":{"containers":[{"name":"node-agent","env":[{"name":"SPOTBENCH_STORE","value":%q},{"name":"SPOTBENCH_CONTAINER_CHECKPOINTS","value":"true"}]}]}}}}`,
		storeURL(listener.Addr().String()))
	if _, err := stage.Client.AppsV1().DaemonSets("spotbench-system").Patch(ctx, "node-agent", types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		return err
	}
	return demo.WaitRolledOut(ctx, stage.Client, 2*time.Minute, "spotbench-system")
}

func storeURL(address string) string {
	return "s3://checkpoints?region=us-east-1&use_path_style=true&endpoint=http://" + address
}

// eventually polls until the condition holds, and fails the test after the timeout.
func eventually(t *testing.T, timeout time.Duration, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(timeout); ; time.Sleep(100 * time.Millisecond) {
		if holds() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s", timeout, what)
		}
	}
}

// cleanupContext outlives the test's own context, which ends before its cleanups run.
func cleanupContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// agentLog is what the agent of the node has logged, for a test that failed.
func agentLog(t *testing.T, node string) string {
	t.Helper()
	pods, err := stage.Client.CoreV1().Pods("spotbench-system").List(cleanupContext(t), metav1.ListOptions{
		LabelSelector: "app.kubernetes.io/name=node-agent", FieldSelector: "spec.nodeName=" + node})
	if err != nil || len(pods.Items) == 0 {
		return fmt.Sprint("no agent: ", err)
	}
	lines := int64(40)
	var text strings.Builder
	for _, previous := range []bool{true, false} {
		log, err := stage.Client.CoreV1().Pods("spotbench-system").GetLogs(pods.Items[0].Name, &corev1.PodLogOptions{Previous: previous, TailLines: &lines}).DoRaw(cleanupContext(t))
		if err == nil {
			text.Write(log)
		}
	}
	return text.String()
}
