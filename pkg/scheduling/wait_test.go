// SPDX-License-Identifier: Apache-2.0

package scheduling_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/risk"
)

// takenSpot is a cluster of a spot and an on-demand node of one kind, of which
// the spot node is taken by another pod.
func takenSpot(t *testing.T) *cluster {
	t.Helper()
	c := startCluster(t,
		gpuNode("spot", "NVIDIA-H100-80GB-HBM3", 81559, 8, "p5.48xlarge", "spot", "us-east-1b"),
		gpuNode("od", "NVIDIA-H100-80GB-HBM3", 81559, 8, "p5.48xlarge", "on-demand", "us-east-1b"))
	c.create(benchPod("taker", 8, nil))
	c.placed("taker", "spot")
	return c
}

func in(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.RFC3339) }

func TestAPodWithADeadlineWaitsForSpotAndStartsOnDemandInTime(t *testing.T) {
	c := takenSpot(t)
	// An hour of work and the margin of 15 minutes: on demand must start in about 4 s,
	// and no event of the cluster will say so.
	c.create(benchPod("patient", 8, map[string]string{"expected-duration": "1h", "checkpoint-path": "/checkpoint", "deadline": in(time.Hour + 15*time.Minute + 5*time.Second)}))
	c.refused("patient", "1 node(s) have on-demand capacity; the pod waits for spot until", "1 Insufficient nvidia.com/gpu")
	c.placed("patient", "od")
}

func TestAPodThatWaitsForSpotTakesItWhenItIsFree(t *testing.T) {
	c := takenSpot(t)
	c.create(benchPod("patient", 8, map[string]string{"expected-duration": "1h", "checkpoint-path": "/checkpoint", "deadline": in(24 * time.Hour)}))
	c.refused("patient", "waits for spot until")
	if err := c.client.CoreV1().Pods("default").Delete(c.ctx, "taker", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.placed("patient", "spot")
}

func TestAPodWithADeadlineDoesNotWaitWhereNoSpotNodeSuitsIt(t *testing.T) {
	c := startCluster(t,
		gpuNode("spot", "NVIDIA-L4", 23034, 8, "g6.12xlarge", "spot", "us-east-1c"),
		gpuNode("od", "NVIDIA-H100-80GB-HBM3", 81559, 8, "p5.48xlarge", "on-demand", "us-east-1b"))
	c.create(benchPod("h100", 8, map[string]string{"gpu-model": "H100-80GB", "deadline": in(24 * time.Hour)}))
	c.placed("h100", "od")
}

// riskServer is a catalog that has learned one hazard, of any age, of the pool of
// h100-spot-0; millis is that hazard in thousandths per hour.
func riskServer(t *testing.T, millis *atomic.Int64) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if millis.Load() < 0 || r.URL.Path != "/v1/risk" {
			http.Error(w, "away", http.StatusServiceUnavailable)
			return
		}
		p := catalog.PoolRisk{Provider: "aws", Region: "us-east-1", Zone: "us-east-1b", InstanceType: "p5.48xlarge", CapacityType: "spot", Machines: 1000}
		for range risk.Pieces { // so much evidence that what is assumed is forgotten
			p.HazardByAge = append(p.HazardByAge, catalog.AgeHazard{InstanceHours: 1e6, Interruptions: 1e3 * float64(millis.Load())})
		}
		_ = json.NewEncoder(w).Encode(catalog.Page[catalog.PoolRisk]{Items: []catalog.PoolRisk{p}})
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestWhatTheCatalogLearnedDecidesAndWakesPodsThatARiskKeptPending(t *testing.T) {
	var millis atomic.Int64
	millis.Store(1000) // 1 - exp(-1) = 0.63 over an hour
	c := startClusterWith(t, []string{"catalogURL: " + riskServer(t, &millis), "riskRefresh: 100ms"},
		gpuNode("h100", "NVIDIA-H100-80GB-HBM3", 81559, 8, "p5.48xlarge", "spot", "us-east-1b"))
	time.Sleep(300 * time.Millisecond) // the first answer
	c.create(benchPod("careful", 1, map[string]string{"max-interruption-risk": "0.10", "expected-duration": "1h"}))
	c.refused("careful", "1 node(s) have interruption risk 0.63 over 1h, limit 0.10")
	millis.Store(50) // 1 - exp(-0.05) = 0.05; assumed of the pool is 0.21
	p := c.placed("careful", "h100")
	if p.InterruptionRisk < 0.0487 || p.InterruptionRisk > 0.0489 {
		t.Errorf("risk of the placement %v, want 1-exp(-0.05) = 0.0488", p.InterruptionRisk)
	}
}

func TestALearnedRiskWakesOnlyPodsThatItNoLongerKeepsPending(t *testing.T) {
	var millis atomic.Int64
	millis.Store(1000)
	c := startClusterWith(t, []string{"catalogURL: " + riskServer(t, &millis), "riskRefresh: 100ms"},
		gpuNode("h100", "NVIDIA-H100-80GB-HBM3", 81559, 8, "p5.48xlarge", "spot", "us-east-1b"))
	time.Sleep(300 * time.Millisecond) // the first answer
	c.create(benchPod("careful", 1, map[string]string{"max-interruption-risk": "0.01", "expected-duration": "1h"}))
	c.refused("careful", "limit 0.01")
	c.create(benchPod("large", 16, map[string]string{"max-interruption-risk": "0.9", "expected-duration": "1h"}))
	c.refused("large", "Insufficient nvidia.com/gpu")
	c.create(benchPod("bold", 1, map[string]string{"max-interruption-risk": "0.10", "expected-duration": "1h"}))
	c.refused("bold", "limit 0.10")
	tried := tries(t)
	millis.Store(500) // 1 - exp(-0.5) = 0.39: nobody may run yet
	time.Sleep(500 * time.Millisecond)
	if woken := tries(t) - tried; woken != 0 {
		t.Errorf("a risk that is still too high for all woke %d pods", woken)
	}
	millis.Store(50)
	c.placed("bold", "h100")
	afterTries(t, tried, 1)
	if woken := tries(t) - tried; woken != 1 {
		t.Errorf("%d pods were tried, want the one that may run now", woken)
	}
}

func TestWithoutTheCatalogWhatIsAssumedHolds(t *testing.T) {
	var millis atomic.Int64
	millis.Store(-1)
	c := startClusterWith(t, []string{"catalogURL: " + riskServer(t, &millis), "riskRefresh: 100ms"}, reference()...)
	c.create(benchPod("careful", 1, map[string]string{"gpu-model": "H100-80GB", "max-interruption-risk": "0.10", "expected-duration": "45m"}))
	c.refused("careful", "interruption risk 0.16 over 45m, limit 0.10") // the Advisor's band
}

func TestANodeThatTheCloudRecommendsToLeaveHasARaisedRisk(t *testing.T) {
	leave := gpuNode("leave", "NVIDIA-H100-80GB-HBM3", 81559, 8, "p5.48xlarge", "spot", "us-east-1b")
	leave.Status.Conditions = append(leave.Status.Conditions, v1.NodeCondition{Type: benchspec.ConditionRebalance, Status: v1.ConditionTrue})
	stay := gpuNode("stay", "NVIDIA-H100-80GB-HBM3", 81559, 8, "p5.48xlarge", "spot", "us-east-1b")
	c := startCluster(t, leave, stay)
	c.create(benchPod("first", 8, map[string]string{"expected-duration": "1h"}))
	c.placed("first", "stay") // though "leave" sorts before it
	c.create(benchPod("second", 8, map[string]string{"expected-duration": "1h", "max-interruption-risk": "0.5"}))
	c.refused("second", "1 node(s) have interruption risk 0.63 over 1h, limit 0.50") // 1 - exp(-1)
}
