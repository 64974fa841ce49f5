// SPDX-License-Identifier: Apache-2.0

package scheduling_test

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// memory is what a process has resident in MiB, now and at most.
func (p *process) memory() (now, peak int) {
	p.t.Helper()
	for line := range strings.Lines(p.proc("status")) {
		fields := strings.Fields(line)
		switch fields[0] {
		case "VmRSS:":
			now, _ = strconv.Atoi(fields[1])
		case "VmHWM:":
			peak, _ = strconv.Atoi(fields[1])
		}
	}
	return now / 1024, peak / 1024
}

// cpu is the processor time that it has used.
func (p *process) cpu() time.Duration {
	p.t.Helper()
	stat := p.proc("stat")
	fields := strings.Fields(stat[strings.LastIndex(stat, ")")+1:])
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

func (p *process) proc(file string) string {
	p.t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.cmd.Process.Pid, file))
	if err != nil {
		p.t.Fatal(err)
	}
	return string(bytes.TrimSpace(data))
}

// TestABacklogOverARealAPIServer is as many pods that fit nowhere as the variable
// SPOTBENCH_BACKLOG says: 50,000 take an API server minutes to store.
func TestABacklogOverARealAPIServer(t *testing.T) {
	pods, err := strconv.Atoi(os.Getenv("SPOTBENCH_BACKLOG"))
	if err != nil {
		t.Skip("set SPOTBENCH_BACKLOG to a number of pods, such as 50000")
	}
	var names []string
	for i := range 100 {
		names = append(names, fmt.Sprintf("node-%02d", i))
	}
	c := startControlPlane(t, a100s(names...)...)
	config := *c.env.Config
	config.QPS = -1
	config.ContentType, config.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf"
	client, err := kubernetes.NewForConfig(&config)
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig, err := c.schedulerUser().KubeConfig()
	if err != nil {
		t.Fatal(err)
	}
	p := c.startProcessWith(buildProcess(t), c.write("scheduler.kubeconfig", kubeconfig), "leaderElect: false")
	c.within(time.Minute, "the scheduler is ready", func() bool { return p.get("/readyz") == "ok" })
	empty, _ := p.memory()

	start := time.Now()
	group, ctx := errgroup.WithContext(c.ctx)
	group.SetLimit(16)
	for i := range pods {
		pod := benchPod(fmt.Sprintf("waits-%05d", i), 16, map[string]string{"max-interruption-risk": "0.9"})
		if i%2 == 0 {
			pod = benchPod(pod.Name, 1, map[string]string{"gpu-model": "H200"})
		}
		group.Go(func() error {
			_, err := client.CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	created := time.Since(start)
	tried := func() int { return int(p.sum("scheduler_schedule_attempts_total")) }
	for ; tried() < pods; time.Sleep(time.Second) {
		if time.Since(start) > 15*time.Minute {
			t.Fatalf("%d of %d pods were tried", tried(), pods)
		}
	}
	all, used := time.Since(start), p.cpu()
	now, peak := p.memory()
	t.Logf("%d pods: created in %s, all tried after %s; %s of CPU, %.2f ms for each; memory %d MiB, before %d MiB, at most %d MiB",
		pods, created.Round(time.Second), all.Round(time.Second), used.Round(time.Second), used.Seconds()*1000/float64(pods), now, empty, peak)

	start = time.Now()
	c.create(benchPod("fits", 1, nil))
	c.eventually("fits", "placed", func(p *v1.Pod) bool { return p.Spec.NodeName != "" })
	t.Logf("a pod that fits is placed after %s", time.Since(start).Round(time.Millisecond))

	const pause = 20 * time.Second
	used, count := p.cpu(), tried()
	time.Sleep(pause)
	t.Logf("at rest %.1f %% of a CPU, %d tries in %s", 100*float64(p.cpu()-used)/float64(pause), tried()-count, pause)
	if again := tried() - count; again != 0 {
		t.Errorf("%d pods were tried again without a reason", again)
	}
}
