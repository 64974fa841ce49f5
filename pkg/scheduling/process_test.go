// SPDX-License-Identifier: Apache-2.0

package scheduling_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/spotbench/spotbench/pkg/gpu"
)

// process is the scheduler's program at work, as it is shipped: with its own roles and
// leader election.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	url  string
	log  string
	done chan struct{}
}

// buildProcess builds the program.
func buildProcess(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "scheduler")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "../../cmd/scheduler").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

// startProcess starts a replica that talks to the API server by a kubeconfig.
func (c *realCluster) startProcess(binary, kubeconfig string) *process {
	c.t.Helper()
	return c.startProcessWith(binary, kubeconfig, "leaderElect: true")
}

// startProcessWith starts it with or without leader election.
func (c *realCluster) startProcessWith(binary, kubeconfig, election string) *process {
	c.t.Helper()
	data, err := os.ReadFile(shippedConfig(c.t))
	if err != nil {
		c.t.Fatal(err)
	}
	text := strings.Replace(string(data), "leaderElect: true", election, 1)
	config := c.write("config.yaml", []byte(strings.Replace(text, "clientConnection:\n", "clientConnection:\n  kubeconfig: "+kubeconfig+"\n", 1)))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	_ = listener.Close()
	p := &process{t: c.t, url: "https://127.0.0.1:" + port, log: filepath.Join(c.t.TempDir(), "log"), done: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		c.t.Fatal(err)
	}
	defer log.Close()
	p.cmd = exec.Command(binary, "--config="+config, "--bind-address=127.0.0.1", "--secure-port="+port, "--snapshot-address=",
		"--authentication-kubeconfig="+kubeconfig, "--authorization-kubeconfig="+kubeconfig,
		"--authorization-always-allow-paths=/healthz,/livez,/readyz,/metrics")
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	go func() { defer close(p.done); _ = p.cmd.Wait() }()
	c.t.Cleanup(func() {
		p.kill()
		if c.t.Failed() {
			text, _ := os.ReadFile(p.log)
			c.t.Logf("the end of the log of %s:\n%s", p.url, text[max(0, len(text)-3000):])
		}
	})
	return p
}

// kill ends the process as a machine's loss does.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// get asks the process's own server; "" when it does not answer with 200.
func (p *process) get(path string) string {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	response, err := client.Get(p.url + path)
	if err != nil {
		return ""
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		return ""
	}
	return string(body)
}

// sum adds up all series of a metric.
func (p *process) sum(name string) (total float64) {
	p.t.Helper()
	var parser expfmt.TextParser
	families, err := parser.TextToMetricFamilies(bytes.NewReader([]byte(p.get("/metrics"))))
	if err != nil {
		p.t.Fatal(err)
	}
	for _, m := range families[name].GetMetric() {
		total += m.GetGauge().GetValue() + m.GetCounter().GetValue()
	}
	return total
}

// leads says whether the process is the leader, by its own metric.
func (p *process) leads() bool { return p.sum("leader_election_master_status") == 1 }

// within waits until something is so.
func (c *realCluster) within(limit time.Duration, what string, is func() bool) time.Duration {
	c.t.Helper()
	start := time.Now()
	for !is() {
		if time.Since(start) > limit {
			c.t.Fatalf("not within %s: %s", limit, what)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return time.Since(start)
}

// slowAPI stands between schedulers and the API server, takes its time over bindings,
// and counts those that were made.
type slowAPI struct {
	*httptest.Server
	mu   sync.Mutex
	made map[string]int
	// underWay is how many bindings have been asked for and not answered.
	underWay int
}

var bindingPath = regexp.MustCompile(`^/api/v1/namespaces/[^/]+/pods/([^/]+)/binding$`)

// startSlowAPI answers as the user of a configuration. Of the bindings that are under
// way when a scheduler dies, half are made all the same, as if they had just arrived.
func startSlowAPI(t *testing.T, config *rest.Config, delay time.Duration) *slowAPI {
	t.Helper()
	target, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.Transport, proxy.FlushInterval = transport, -1
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	s := &slowAPI{made: map[string]int{}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		match := bindingPath.FindStringSubmatch(r.URL.Path)
		if match == nil {
			proxy.ServeHTTP(w, r)
			return
		}
		s.mu.Lock()
		s.underWay++
		s.mu.Unlock()
		defer func() { s.mu.Lock(); s.underWay--; s.mu.Unlock() }()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		hash := fnv.New32()
		_, _ = hash.Write([]byte(match[1]))
		arrives := hash.Sum32()%2 == 0
		select {
		case <-time.After(delay):
		case <-r.Context().Done():
			if !arrives {
				return
			}
		}
		answer := httptest.NewRecorder()
		again := r.Clone(t.Context())
		again.Body = io.NopCloser(bytes.NewReader(body))
		proxy.ServeHTTP(answer, again)
		if answer.Code == http.StatusCreated {
			s.mu.Lock()
			s.made[match[1]]++
			s.mu.Unlock()
		}
		time.Sleep(delay / 2)
		for key, values := range answer.Header() {
			w.Header()[key] = values
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes())
	}))
	t.Cleanup(s.CloseClientConnections)
	return s
}

func (s *slowAPI) bindingsUnderWay() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.underWay
}

// kubeconfig of the slow API.
func (c *realCluster) kubeconfigOf(server string) string {
	return c.write("slow.kubeconfig", fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: slow, cluster: {server: %q}}]
contexts: [{name: slow, context: {cluster: slow, user: none}}]
users: [{name: none, user: {}}]
current-context: slow
`, server))
}

// schedulerUser is the identity that the scheduler's roles are bound to.
func (c *realCluster) schedulerUser() *envtest.AuthenticatedUser {
	c.t.Helper()
	user, err := c.env.AddUser(envtest.User{
		Name:   "system:serviceaccount:spotbench-system:scheduler",
		Groups: []string{"system:serviceaccounts", "system:authenticated"},
	}, &rest.Config{QPS: -1})
	if err != nil {
		c.t.Fatal(err)
	}
	return user
}

// pods are all that there are.
func (c *realCluster) pods() []v1.Pod {
	c.t.Helper()
	list, err := c.client.CoreV1().Pods("default").List(c.ctx, metav1.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return list.Items
}

// bound is how many pods have a node.
func (c *realCluster) bound() (n int) {
	for _, pod := range c.pods() {
		if pod.Spec.NodeName != "" {
			n++
		}
	}
	return n
}

// booked is how many GPUs the pods on each node ask for. More than a node has is an
// error.
func (c *realCluster) booked() map[string]int64 {
	c.t.Helper()
	used := map[string]int64{}
	for _, pod := range c.pods() {
		if pod.Spec.NodeName != "" {
			q := pod.Spec.Containers[0].Resources.Requests[gpu.ResourceName]
			used[pod.Spec.NodeName] += q.Value()
		}
	}
	nodes, err := c.client.CoreV1().Nodes().List(c.ctx, metav1.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	for _, n := range nodes.Items {
		has := n.Status.Allocatable[gpu.ResourceName]
		if used[n.Name] > has.Value() {
			c.t.Errorf("node %s has %d GPUs, and pods on it that ask for %d", n.Name, has.Value(), used[n.Name])
		}
	}
	return used
}

// TestOfTwoReplicasOneSchedulesAndTheOtherTakesOverWhenItIsKilled kills the leader
// while it has reserved GPUs for pods whose bindings are on their way.
func TestOfTwoReplicasOneSchedulesAndTheOtherTakesOverWhenItIsKilled(t *testing.T) {
	const nodes, singles = 20, 150 // 160 GPUs; the gangs ask for 64 of them
	var names []string
	for i := range nodes {
		names = append(names, fmt.Sprintf("node-%02d", i))
	}
	c := startControlPlane(t, a100s(names...)...)
	binary := buildProcess(t)
	api := startSlowAPI(t, c.schedulerUser().Config(), time.Second)
	kubeconfig := c.kubeconfigOf(api.URL)
	replicas := []*process{c.startProcess(binary, kubeconfig), c.startProcess(binary, kubeconfig)}
	c.within(time.Minute, "both replicas are ready, and one leads", func() bool {
		return replicas[0].get("/readyz") == "ok" && replicas[1].get("/readyz") == "ok" && replicas[0].leads() != replicas[1].leads()
	})
	leader, standby := replicas[0], replicas[1]
	if standby.leads() {
		leader, standby = standby, leader
	}

	groups := map[string][]string{"gang-a": c.group("gang-a", 8, 8, 8, 8), "gang-b": c.group("gang-b", 8, 8, 8, 8)}
	for i := range singles {
		c.create(benchPod(fmt.Sprintf("single-%03d", i), 1, map[string]string{"gpu-model": "A100-80GB"}))
	}
	c.within(time.Minute, "pods are bound and others on their way", func() bool { return c.bound() >= 10 && api.bindingsUnderWay() >= 20 })
	if tried := standby.sum("scheduler_schedule_attempts_total"); tried != 0 {
		t.Errorf("the replica that does not lead has tried %v pods", tried)
	}
	if free := standby.sum("spotbench_scheduler_gpus_free"); free < 1 {
		t.Errorf("the replica that does not lead shows %v GPUs free", free)
	}
	if status := standby.get("/readyz"); status != "ok" {
		t.Errorf("the replica that does not lead is not ready: %s", status)
	}
	underWay := api.bindingsUnderWay()
	leader.kill()
	before := c.bound()
	took := c.within(30*time.Second, "the other replica leads", standby.leads)
	t.Logf("killed with %d pods bound and %d bindings under way; the other leads after %s", before, underWay, took.Round(10*time.Millisecond))
	// A lease of 10 s, tried for every 2 s with some jitter; the rest is the machine's.
	if took > 20*time.Second {
		t.Errorf("took over after %s", took)
	}

	full := int64(nodes * 8)
	c.within(time.Minute, "all GPUs are in use", func() bool {
		var used int64
		for _, n := range c.booked() {
			used += n
		}
		return used == full
	})
	api.mu.Lock()
	defer api.mu.Unlock()
	for _, pod := range c.pods() {
		bound := 0
		if pod.Spec.NodeName != "" {
			bound = 1
		}
		if api.made[pod.Name] != bound {
			t.Errorf("pod %s is on %q after %d bindings", pod.Name, pod.Spec.NodeName, api.made[pod.Name])
		}
	}
	for name, pods := range groups {
		placed := slices.DeleteFunc(slices.Clone(pods), func(p string) bool { return c.pod(p).Spec.NodeName == "" })
		if len(placed) != 0 && len(placed) != len(pods) {
			t.Errorf("of %s only %v are placed", name, placed)
		}
	}

	// Another replica in place of the dead, and nothing changes.
	c.startProcess(binary, kubeconfig)
	time.Sleep(2 * time.Second)
	c.booked()
}

func TestTheSchedulerGoesOnWhenTheAPIServerIsBack(t *testing.T) {
	c := startControlPlane(t, a100s("node-a", "node-b")...)
	kubeconfig, err := c.schedulerUser().KubeConfig()
	if err != nil {
		t.Fatal(err)
	}
	// With leader election it would give up after renewDeadline, and start anew.
	p := c.startProcessWith(buildProcess(t), c.write("scheduler.kubeconfig", kubeconfig), "leaderElect: false")
	for i := range 6 {
		c.create(benchPod(fmt.Sprintf("before-%d", i), 1, nil))
	}
	c.within(time.Minute, "pods are placed", func() bool { return c.bound() == 6 })
	waits := c.group("waits", 8, 8) // two whole nodes
	c.refused(waits[0], "does not fit as a whole")
	attemptsBefore := p.sum("scheduler_schedule_attempts_total")

	c.loseAPIServer(2 * time.Second)

	for i := range 20 { // of which ten fit
		c.create(benchPod(fmt.Sprintf("after-%02d", i), 1, nil))
	}
	took := c.within(time.Minute, "pods that came afterwards are placed", func() bool { return c.bound() == 16 })
	t.Logf("all GPUs are in use %s after the API server was back", took.Round(10*time.Millisecond))
	select {
	case <-p.done:
		t.Error("the scheduler ended")
	default:
	}
	if p.sum("scheduler_schedule_attempts_total") <= attemptsBefore {
		t.Error("another process counts its attempts")
	}
	for node, used := range c.booked() {
		if used != 8 {
			t.Errorf("node %s has %d GPUs in use, want all 8", node, used)
		}
	}
	for _, name := range waits {
		if node := c.pod(name).Spec.NodeName; node != "" {
			t.Errorf("pod %s of a gang without room is on %s", name, node)
		}
	}
}
