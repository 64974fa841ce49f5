// SPDX-License-Identifier: Apache-2.0

package scheduling_test

import (
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/component-base/metrics/legacyregistry"

	"github.com/spotbench/spotbench/pkg/pricing"
)

// metric reads one series; NaN where there is none.
func metric(t *testing.T, name string, want map[string]string) float64 {
	t.Helper()
	if all := series(t, name, want); len(all) > 0 {
		return all[0]
	}
	return math.NaN()
}

// sum adds up all series with these labels.
func sum(t *testing.T, name string, want map[string]string) (total float64) {
	t.Helper()
	for _, value := range series(t, name, want) {
		total += value
	}
	return total
}

// series reads all with these labels.
func series(t *testing.T, name string, want map[string]string) (values []float64) {
	t.Helper()
	families, err := legacyregistry.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
	series:
		for _, m := range family.GetMetric() {
			for _, l := range m.GetLabel() {
				if w, ok := want[l.GetName()]; ok && w != l.GetValue() {
					continue series
				}
			}
			values = append(values, m.GetGauge().GetValue()+m.GetCounter().GetValue())
		}
	}
	return values
}

func TestGPUsAndCostsAreMeasuredByModel(t *testing.T) {
	cordoned := gpuNode("cordoned", "NVIDIA-A100-SXM4-80GB", 81920, 8, "p4de.24xlarge", "on-demand", "us-east-1d")
	cordoned.Spec.Unschedulable = true
	c := startCluster(t, append(reference(), cordoned)...)
	c.create(benchPod("running", 3, map[string]string{"gpu-model": "A100-80GB"}))
	p := c.placed("running", "a100-spot-0")
	over := benchPod("over", 2, map[string]string{})
	over.Spec.NodeName, over.Status.Phase = "a100-spot-0", v1.PodSucceeded
	c.create(over)
	for name, test := range map[string]struct {
		metric, model string
		want          float64
	}{
		"two nodes of eight, three taken, the finished pod's returned": {"spotbench_scheduler_gpus_free", "A100-80GB", 8 + 8 - 3},
		"the cordoned node's":            {"spotbench_scheduler_gpus_unusable", "A100-80GB", 8},
		"all of an idle model":           {"spotbench_scheduler_gpus_free", "H100-80GB", 8},
		"none of an idle model unusable": {"spotbench_scheduler_gpus_unusable", "H100-80GB", 0},
		"what the placement expects":     {"spotbench_scheduler_running_expected_cost_usd", "A100-80GB", p.ExpectedCostUSD},
	} {
		t.Run(name, func(t *testing.T) {
			var got float64
			for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
				if got = metric(t, test.metric, map[string]string{"gpu_model": test.model}); got == test.want {
					return
				}
			}
			t.Errorf("%s{gpu_model=%q} is %v, want %v", test.metric, test.model, got, test.want)
		})
	}
	labels := map[string]string{"reason": "GPUModel", "gpu_model": "L4-24GB"}
	before := metric(t, "spotbench_scheduler_refusals_total", labels)
	if math.IsNaN(before) {
		before = 0
	}
	c.create(benchPod("h200", 1, map[string]string{"gpu-model": "H200"}))
	c.refused("h200", "wanted H200-141GB")
	if got := metric(t, "spotbench_scheduler_refusals_total", labels) - before; got != 1 {
		t.Errorf("the L4 node was refused %v times, want once", got)
	}
}

func TestPricesThatGrowOldUnderARunningSchedulerAreMeasured(t *testing.T) {
	text, err := os.ReadFile(manifests + "prices.yaml")
	if err != nil {
		t.Fatal(err)
	}
	book, err := pricing.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	// The oldest are at the limit a few seconds after the start.
	oldest := book.OlderThan(time.Now())[0].AsOf
	limit := time.Since(oldest) + 5*time.Second
	startClusterWith(t, []string{"priceMaxAge: " + limit.String()}, reference()...)
	if got := metric(t, "spotbench_scheduler_oldest_price_timestamp_seconds", nil); got != float64(oldest.Unix()) {
		t.Errorf("the oldest price is of %v, want %v (%s)", got, oldest.Unix(), oldest)
	}
	if got := metric(t, "spotbench_scheduler_old_prices", nil); got != 0 {
		t.Fatalf("%v old prices at the start, want none", got)
	}
	want := float64(len(book.OlderThan(oldest.Add(time.Second))))
	for deadline := time.Now().Add(10 * time.Second); metric(t, "spotbench_scheduler_old_prices", nil) != want; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%v old prices once the oldest reached the limit, want %v", metric(t, "spotbench_scheduler_old_prices", nil), want)
		}
	}
}

func TestRulesAndDashboardAskOnlyForMetricsThatAreServed(t *testing.T) {
	startCluster(t, reference()...)
	for _, file := range []string{"scheduler.rules.yaml", "scheduler.dashboard.json"} {
		text, err := os.ReadFile("../../manifests/components/monitoring/" + file)
		if err != nil {
			t.Fatal(err)
		}
		names := regexp.MustCompile(`spotbench_scheduler_[a-z_]+`).FindAllString(string(text), -1)
		if len(names) == 0 {
			t.Errorf("%s asks for none of our metrics", file)
		}
		for _, name := range names {
			// Counters without a series are not gathered; their code has the name.
			if !math.IsNaN(metric(t, name, nil)) {
				continue
			}
			sources, err := filepath.Glob("*metrics.go")
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(sources, func(source string) bool {
				code, err := os.ReadFile(source)
				return err == nil && strings.Contains(string(code), `"`+name+`"`)
			}) {
				t.Errorf("%s asks for %s, which nobody serves", file, name)
			}
		}
	}
}
