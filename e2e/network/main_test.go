// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package network_test tries the platform's network policies with real connections
// between pods of two real nodes that enforce them.
package network_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/spotbench/spotbench/pkg/demo"
	"github.com/spotbench/spotbench/pkg/images"
	"github.com/spotbench/spotbench/pkg/localcluster"
	"github.com/spotbench/spotbench/pkg/localcluster/shape"
)

const twoNodes = `
nodes:
- {name: node-0, instanceType: m7i.2xlarge, zone: us-east-1a, capacityType: on-demand}
- {name: node-1, instanceType: m7i.2xlarge, zone: us-east-1b, capacityType: on-demand}
`

var nodes = []string{"node-0", "node-1"}

// ports are those that anybody in the platform listens on; every actor answers on all,
// so that what keeps a connection from coming about is a policy.
var ports = []int{5432, 6379, 8000, 8001, 8080, 9000, 9090, 9187}

// actor is a role in the platform, played by one pod on each node.
type actor struct {
	name, namespace string
	labels          map[string]string
}

var actors = []actor{
	{"envoy", "gateway", nil},
	{"catalog-api", "model-catalog", map[string]string{"app.kubernetes.io/name": "spotbench", "app.kubernetes.io/component": "catalog-api"}},
	{"catalog-other", "model-catalog", nil},
	{"catalog-db", "data-storage", map[string]string{"app.kubernetes.io/name": "catalog-db"}},
	{"object-store", "data-storage", map[string]string{"app.kubernetes.io/name": "object-store"}},
	{"benchmark", "gpu-workloads", nil},
	{"workflow-step", "gpu-workloads", map[string]string{"workflows.argoproj.io/workflow": "nightly"}},
	{"argo", "argo-workflows", nil},
	{"prometheus", "monitoring", nil},
	{"scheduler", "spotbench-system", nil},
	{"stranger", "default", nil},
}

// world is the cluster with every actor's pods running.
type world struct {
	cluster *localcluster.Cluster
	kubectl demo.Kubectl
	// address of an actor's pod on each node.
	address map[string][]string
}

// name is the cluster's.
const name = "e2e-network"

// rules are the host's own, which nodes must leave alone.
func rules(t *testing.T) (list []string) {
	t.Helper()
	for _, args := range [][]string{{"iptables-save"}, {"ip6tables-save"}, {"ipset", "list", "-name"}} {
		out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).Output()
		if errors.Is(err, exec.ErrNotFound) {
			continue // starting a cluster brings it
		}
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		for line := range strings.Lines(string(out)) {
			// Comments and chains carry times and counters.
			if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, ":") {
				list = append(list, args[0]+": "+strings.TrimSpace(line))
			}
		}
	}
	return list
}

// enter starts the cluster and lets every actor play.
func enter(t *testing.T) *world {
	t.Helper()
	if err := localcluster.Check(); err != nil {
		t.Skip(err)
	}
	if testing.Short() {
		t.Skip("starts a real cluster, not in short mode")
	}
	t.Cleanup(func() {
		if t.Failed() {
			// The logs go with the cluster.
			tail, _ := exec.Command("sh", "-c", "tail -n 15 /var/lib/spotbench/"+name+"/logs/node-*/kube-router.log").CombinedOutput()
			t.Logf("%s", tail)
		}
		if err := localcluster.Down(name, io.Discard); err != nil {
			t.Error(err)
		}
	})
	if err := localcluster.Down(name, io.Discard); err != nil {
		t.Fatal(err)
	}
	parsed, err := shape.Parse([]byte(twoNodes))
	if err != nil {
		t.Fatal(err)
	}
	c, err := localcluster.Up(t.Context(), localcluster.Options{Name: name, Shape: parsed, NetworkPolicies: true, Progress: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	path, err := c.Kubectl()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.LoadImages(t.Context(), probe(t)); err != nil {
		t.Fatal(err)
	}
	w := &world{cluster: c, kubectl: demo.Kubectl{Path: path, Kubeconfig: c.Kubeconfig()}, address: map[string][]string{}}
	if err := w.kubectl.ApplyKustomization(t.Context(), "../../manifests/base/namespaces"); err != nil {
		t.Fatal(err)
	}
	w.play(t)
	return w
}

func probe(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	binary := filepath.Join(dir, "probe")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./probe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the probe: %v\n%s", err, out)
	}
	img := images.Image{Ref: "spotbench.dev/network-probe:e2e", Entrypoint: []string{"/probe"}, User: "65532:65532", Entries: []images.Entry{{Path: "/probe", Source: binary, Mode: 0o755}}}
	tar := filepath.Join(dir, "probe.tar")
	if err := img.Write(tar); err != nil {
		t.Fatal(err)
	}
	return tar
}

// play starts every actor's pods and notes their addresses.
func (w *world) play(t *testing.T) {
	t.Helper()
	for _, a := range actors {
		for _, node := range nodes {
			if _, err := w.cluster.Client().CoreV1().Pods(a.namespace).Create(t.Context(), a.pod(node), metav1.CreateOptions{}); err != nil {
				t.Fatalf("create %s on %s: %v", a.name, node, err)
			}
		}
	}
	for _, a := range actors {
		for _, node := range nodes {
			var pod *corev1.Pod
			err := wait.PollUntilContextTimeout(t.Context(), 200*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
				var err error
				pod, err = w.cluster.Client().CoreV1().Pods(a.namespace).Get(ctx, a.on(node), metav1.GetOptions{})
				return err == nil && pod.Status.Phase == corev1.PodRunning && pod.Status.PodIP != "", err
			})
			if err != nil {
				t.Fatalf("%s on %s does not run: %v; %+v", a.name, node, err, pod.Status)
			}
			w.address[a.name] = append(w.address[a.name], pod.Status.PodIP)
		}
	}
}

func (a actor) on(node string) string { return a.name + "-" + node }

func (a actor) pod(node string) *corev1.Pod {
	yes, no, zero := true, false, int64(0)
	args := []string{"listen"}
	for _, port := range ports {
		args = append(args, strconv.Itoa(port))
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: a.on(node), Namespace: a.namespace, Labels: a.labels},
		Spec: corev1.PodSpec{
			NodeName: node, TerminationGracePeriodSeconds: &zero, AutomountServiceAccountToken: &no,
			SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: &yes, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
			Containers: []corev1.Container{{
				Name: "probe", Image: "spotbench.dev/network-probe:e2e", ImagePullPolicy: corev1.PullNever, Args: args,
				SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: &no, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}},
			}},
		},
	}
}

// try lets the actor's pod on the first node try every target, and returns which it
// reached.
func (w *world) try(ctx context.Context, a actor, verb string, targets []string) (map[string]bool, error) {
	args := append([]string{"exec", "--namespace", a.namespace, a.on(nodes[0]), "--", "/probe", verb}, targets...)
	out, err := w.kubectl.Run(ctx, args...)
	if err != nil {
		return nil, err
	}
	reached := map[string]bool{}
	for line := range strings.Lines(out) {
		if fields := strings.Fields(line); len(fields) > 1 {
			reached[fields[0]] = fields[1] == "yes"
		}
	}
	for _, target := range targets {
		if _, told := reached[target]; !told {
			return nil, fmt.Errorf("%s did not try %s: %s", a.name, target, out)
		}
	}
	return reached, nil
}

// connection is from one actor to a port of another.
type connection struct {
	from, to string
	port     int
}

// connections tries every actor's connections to every port of every other actor, on
// its own node and on the other one, and returns on how many of the two it was open.
func (w *world) connections(ctx context.Context) (map[connection]int, error) {
	open := map[connection]int{}
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for _, from := range actors {
		var targets []string
		at := map[string]connection{}
		for _, to := range actors {
			if to.name == from.name {
				continue
			}
			for _, ip := range w.address[to.name] {
				for _, port := range ports {
					target := ip + ":" + strconv.Itoa(port)
					at[target] = connection{from.name, to.name, port}
					targets = append(targets, target)
				}
			}
		}
		group.Go(func() error {
			reached, err := w.try(ctx, from, "dial", targets)
			mu.Lock()
			defer mu.Unlock()
			for target, c := range at {
				open[c] += map[bool]int{true: 1}[reached[target]]
			}
			return err
		})
	}
	return open, group.Wait()
}

// listed writes ports the way the table shows them.
func listed(list []int) string {
	if slices.Equal(list, ports) {
		return "all"
	}
	if len(list) == 0 {
		return "none"
	}
	text := make([]string, len(list))
	for i, port := range list {
		text[i] = strconv.Itoa(port)
	}
	return strings.Join(text, " ")
}
