// SPDX-License-Identifier: Apache-2.0

//go:build linux

package complete_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/spotbench/spotbench/pkg/demo"
)

// impatient is the platform with alert rules that wait less: what they look at and what
// they say is what promtool tests and a real cluster gets.
const impatient = `apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [ROOT/manifests/overlays/local]
configMapGenerator:
  - name: prometheus
    namespace: monitoring
    behavior: merge
    files: [scheduler.rules.yaml, prometheus.yml]
    options: {disableNameSuffixHash: true}
  - name: alertmanager
    namespace: monitoring
    behavior: merge
    files: [alertmanager.yml]
    options: {disableNameSuffixHash: true}
  - name: scheduler-config
    namespace: spotbench-system
    behavior: merge
    files: [config.yaml]
`

// receiver is Slack and PagerDuty, as far as Alertmanager can tell.
type receiver struct {
	mu   sync.Mutex
	told map[string]map[string]string // receiver and alert, to the text
}

func receive(t *testing.T) (*receiver, string) {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", net.JoinHostPort(stage.Cluster.HostIP().String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{told: map[string]map[string]string{"slack": {}, "pagerduty": {}}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /slack", func(w http.ResponseWriter, req *http.Request) {
		var message struct {
			Attachments []struct{ Title, Text, Fallback string }
		}
		if !decode(w, req, &message) {
			return
		}
		for _, a := range message.Attachments {
			// That it is over is told in the same words.
			if _, alert, ok := strings.Cut(a.Title, ": "); ok && strings.HasPrefix(a.Fallback, "[FIRING") {
				r.note("slack", alert, a.Title+" | "+strings.TrimSpace(a.Text))
			}
		}
		fmt.Fprint(w, "ok")
	})
	mux.HandleFunc("POST /pagerduty", func(w http.ResponseWriter, req *http.Request) {
		var event struct {
			EventAction string `json:"event_action"`
			RoutingKey  string `json:"routing_key"`
			Payload     struct {
				Summary, Severity string
				CustomDetails     map[string]any `json:"custom_details"`
			}
		}
		if !decode(w, req, &event) {
			return
		}
		if event.EventAction == "trigger" && event.RoutingKey != "" {
			firing := fmt.Sprint(event.Payload.CustomDetails["firing"])
			if _, after, ok := strings.Cut(firing, "alertname = "); ok {
				r.note("pagerduty", strings.Fields(after)[0], event.Payload.Severity+" | "+event.Payload.Summary)
			}
		}
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprint(w, `{"status":"success"}`)
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return r, "http://" + listener.Addr().String()
}

func decode(w http.ResponseWriter, req *http.Request, into any) bool {
	body, err := io.ReadAll(io.LimitReader(req.Body, 1<<20))
	if err == nil {
		err = json.Unmarshal(body, into)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
	return err == nil
}

func (r *receiver) note(who, alert, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told[who][alert] = text
}

func (r *receiver) heard(who, alert string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.told[who][alert] == "" {
		return fmt.Errorf("%s has not heard of %s, but of %v", who, alert, r.told[who])
	}
	return nil
}

// text is what Slack was told.
func (r *receiver) text(alert string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.told["slack"][alert]
}

// cause is what raises an alert. Without bring it is there already.
type cause struct {
	alert, what string
	bring, end  func(t *testing.T)
}

// rulesOf are the names and severities of all alerts in the rules.
func rulesOf(t *testing.T, text string) map[string]string {
	t.Helper()
	var file struct {
		Groups []struct {
			Rules []struct {
				Alert  string
				Labels struct{ Severity string }
			}
		}
	}
	if err := yaml.Unmarshal([]byte(text), &file); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, group := range file.Groups {
		for _, rule := range group.Rules {
			all[rule.Alert] = rule.Labels.Severity
		}
	}
	return all
}

// hurry makes everything that waits wait less.
func hurry(t *testing.T, url string) map[string]string {
	t.Helper()
	rules := read(t, "manifests/components/monitoring/scheduler.rules.yaml")
	rules = regexp.MustCompile(`for: \S+`).ReplaceAllString(rules, "for: 15s") // longer than a new Prometheus knows of nobody
	replace := func(text, old, with string) string {
		t.Helper()
		if !strings.Contains(text, old) {
			t.Fatalf("%q is not there any more, to be made %q", old, with)
		}
		return strings.ReplaceAll(text, old, with)
	}
	// An hour without the catalog's risks becomes half a minute.
	rules = replace(rules, "> 3600 and", "> 30 and")
	prometheus := replace(read(t, "manifests/components/prometheus/prometheus.yml"), "_interval: 15s", "_interval: 3s")
	alertmanager := read(t, "manifests/components/prometheus/alertmanager.yml")
	alertmanager = replace(replace(alertmanager, "group_wait: 30s", "group_wait: 1s"), "group_interval: 5m", "group_interval: 5s")
	scheduler := replace(read(t, "manifests/base/scheduler/config.yaml"), "defaultExpectedDuration: 1h", "defaultExpectedDuration: 1h\n          riskRefresh: 5s")
	return map[string]string{
		"scheduler.rules.yaml": rules, "prometheus.yml": prometheus, "config.yaml": scheduler,
		"alertmanager.yml": alertmanager + "global: {pagerduty_url: " + url + "/pagerduty}\n",
	}
}

func TestEveryAlertIsRaisedByItsCauseAndNoticedBySlackAndPagerDuty(t *testing.T) {
	told, url := receive(t)
	secret, err := stage.Client.CoreV1().Secrets("monitoring").Get(t.Context(), "alerting", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	secret.Data["slack-url"] = []byte(url + "/slack")
	if _, err := stage.Client.CoreV1().Secrets("monitoring").Update(t.Context(), secret, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// As it was, for the tests that follow.
		err := stage.Kubectl.ApplyKustomization(cleanupContext(t), root+"/manifests/overlays/local")
		if err := errors.Join(err, demo.WaitRolledOut(cleanupContext(t), stage.Client, 2*time.Minute, "model-catalog", "monitoring", system)); err != nil {
			t.Error(err)
		}
	})
	files := hurry(t, url)
	overlay(t, impatient, files)
	kubectl(t, "-n", "monitoring", "rollout", "restart", "deployment/prometheus", "deployment/alertmanager")
	if err := demo.WaitRolledOut(t.Context(), stage.Client, 3*time.Minute, "monitoring", system); err != nil {
		t.Fatal(err)
	}
	// In this order: what the last ones break, the others need.
	causes := []cause{
		{"SpotbenchPricesOld", "the price book that comes with the manifests is older than 30 days", nil, nil},
		{"SpotbenchGPUsUnusable", "the only H100 node is cordoned",
			func(t *testing.T) { kubectl(t, "cordon", "h100-spot-0") }, func(t *testing.T) { kubectl(t, "uncordon", "h100-spot-0") }},
		{"SpotbenchMalformedAnnotations", "the admission policies are gone, and pods with a wrong annotation come", malformed,
			func(t *testing.T) { kubectl(t, "apply", "--server-side", "-k", root+"/manifests/base/admission") }},
		{"SpotbenchSchedulingSlow", "the schedulers have a seventh of a processor for 200 pods", slow, unslow},
		{"SpotbenchAgentDown", "a GPU node is cut off",
			func(t *testing.T) { check(t, stage.Cluster.Partition(t.Context(), "l4-spot-0")) },
			func(t *testing.T) { check(t, stage.Cluster.Heal(t.Context(), "l4-spot-0")) }},
		{"SpotbenchCatalogDown", "the catalogs are stopped",
			func(t *testing.T) {
				kubectl(t, "-n", "model-catalog", "scale", "deployment", "catalog-api", "--replicas", "0")
			}, nil},
		{"SpotbenchRisksOld", "the catalogs are still stopped", nil,
			func(t *testing.T) {
				kubectl(t, "-n", "model-catalog", "scale", "deployment", "catalog-api", "--replicas", "3")
			}},
		{"SpotbenchSchedulerDown", "the schedulers are stopped",
			func(t *testing.T) {
				kubectl(t, "-n", system, "scale", "deployment", "scheduler", "--replicas", "0")
			},
			func(t *testing.T) {
				kubectl(t, "-n", system, "scale", "deployment", "scheduler", "--replicas", "2")
			}},
	}
	severities := rulesOf(t, files["scheduler.rules.yaml"])
	for alert := range severities {
		if !slices.ContainsFunc(causes, func(c cause) bool { return c.alert == alert }) {
			t.Errorf("%s is a rule, and nothing here causes it", alert)
		}
	}
	for _, c := range causes {
		t.Run(c.alert+": "+c.what, func(t *testing.T) {
			if c.bring != nil {
				if told.heard("slack", c.alert) == nil {
					t.Fatal("it was raised before its cause")
				}
				c.bring(t)
			}
			if c.end != nil {
				defer c.end(t)
			}
			eventually(t, 2*time.Minute, "Slack hears of it", func() error { return told.heard("slack", c.alert) })
			if severities[c.alert] == "critical" {
				eventually(t, 30*time.Second, "PagerDuty hears of it", func() error { return told.heard("pagerduty", c.alert) })
			} else if told.heard("pagerduty", c.alert) == nil {
				t.Errorf("PagerDuty was told of an alert of severity %s", severities[c.alert])
			}
			t.Log(told.text(c.alert))
		})
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// malformed submits two pods that the policies would refuse: the second shows that the
// count of the first has grown.
func malformed(t *testing.T) {
	kubectl(t, "delete", "validatingadmissionpolicybinding", "spotbench-annotations-pods")
	eventually(t, 30*time.Second, "a pod with a wrong annotation gets in", func() error {
		_, err := stage.Client.CoreV1().Pods(workloads).Create(t.Context(), gpuPod("malformed-0", map[string]string{"spotbench.dev/gpu-memory": "much"}), metav1.CreateOptions{})
		return err
	})
	// Prometheus must have seen the first count.
	time.Sleep(10 * time.Second)
	if _, err := stage.Client.CoreV1().Pods(workloads).Create(t.Context(), gpuPod("malformed-1", map[string]string{"spotbench.dev/gpu-memory": "much"}), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, name := range []string{"malformed-0", "malformed-1"} {
			remove(t, name)
		}
	})
}

const slowPods = 200

// slow gives the schedulers next to no processor time, and work.
func slow(t *testing.T) {
	kubectl(t, "-n", system, "set", "resources", "deployment/scheduler", "--limits=cpu=150m")
	if err := demo.WaitRolledOut(t.Context(), stage.Client, 3*time.Minute, system); err != nil {
		t.Fatal(err)
	}
	for i := range slowPods {
		pod := gpuPod(fmt.Sprintf("slow-%d", i), map[string]string{"spotbench.dev/gpu-model": "A100-80GB"})
		pod.Labels = map[string]string{"e2e": "slow"}
		if _, err := stage.Client.CoreV1().Pods(workloads).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

func unslow(t *testing.T) {
	zero := int64(0)
	err := stage.Client.CoreV1().Pods(workloads).DeleteCollection(cleanupContext(t), metav1.DeleteOptions{GracePeriodSeconds: &zero}, metav1.ListOptions{LabelSelector: "e2e=slow"})
	_, undo := stage.Kubectl.Run(cleanupContext(t), "-n", system, "rollout", "undo", "deployment/scheduler")
	if err := errors.Join(err, undo, demo.WaitRolledOut(cleanupContext(t), stage.Client, 2*time.Minute, system)); err != nil {
		t.Error(err)
	}
}
