// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/spotbench/spotbench/pkg/benchspec"
)

func TestTheIntervalOfCheckpointsFollowsTheirCostAndTheRisk(t *testing.T) {
	a := &Agent{}
	a.cfg.setDefaults()
	for name, tt := range map[string]struct {
		interval string
		cost     time.Duration
		risk     float64
		least    time.Duration
		most     time.Duration
	}{
		// The hazard is -ln(0.8)/4h, one interruption in 17.93 h = 64 533 s. Young's
		// interval is √(2·10·64 533) = 1136 s; Daly's is 3 s longer, less the 10 s.
		"auto":                             {"auto", 10 * time.Second, 0.2, 1128 * time.Second, 1131 * time.Second},
		"auto, four times the cost":        {"auto", 40 * time.Second, 0.2, 2230 * time.Second, 2250 * time.Second},
		"auto, nothing is saved yet":       {"auto", 0, 0.2, 10 * time.Minute, 10 * time.Minute},
		"auto, the risk is unknown":        {"auto", 10 * time.Second, 0, 10 * time.Minute, 10 * time.Minute},
		"auto, saving costs next to none":  {"auto", time.Millisecond, 0.99, 30 * time.Second, 30 * time.Second},
		"the pod's own, whatever the risk": {"3m", 10 * time.Second, 0.2, 3 * time.Minute, 3 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			spec, err := benchspec.Parse(map[string]string{benchspec.AnnotationCheckpointPath: "/checkpoint", benchspec.AnnotationCheckpointInterval: tt.interval})
			if err != nil {
				t.Fatal(err)
			}
			w := &workload{a: a, spec: spec, lastSave: tt.cost, placement: benchspec.Placement{InterruptionRisk: tt.risk, ExpectedHours: 4}}
			if got := w.interval(); got < tt.least || got > tt.most {
				t.Errorf("every %s, want %s to %s", got, tt.least, tt.most)
			}
		})
	}
}
