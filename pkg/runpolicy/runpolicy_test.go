// SPDX-License-Identifier: Apache-2.0

package runpolicy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/spotbench/spotbench/pkg/runpolicy"
)

// job is ten hours of work in twenty, asked every six minutes.
var job = runpolicy.Job{Work: 10 * time.Hour, Deadline: 20 * time.Hour, Restart: 6 * time.Minute, Step: 6 * time.Minute}

// zone is one with spot for $1 and on demand for $3.
func zone(name string, up bool) runpolicy.Zone {
	return runpolicy.Zone{Name: name, Region: strings.TrimRight(name, "abc"), SpotUp: up, SpotUSDPerHour: 1, OnDemandUSDPerHour: 3}
}

func decide(t *testing.T, v runpolicy.View) runpolicy.Placement {
	t.Helper()
	p, err := runpolicy.New(job)
	if err != nil {
		t.Fatal(err)
	}
	return p.Decide(v)
}

func TestWhereARunGoesOn(t *testing.T) {
	spot, onDemand, idle := runpolicy.Placement{Capacity: runpolicy.Spot}, runpolicy.Placement{Capacity: runpolicy.OnDemand}, runpolicy.Placement{}
	up, down := zone("r-1a", true), zone("r-1a", false)
	dear := up
	dear.SpotUSDPerHour = 3.5
	for name, c := range map[string]struct {
		view runpolicy.View
		want runpolicy.Placement
	}{
		"at the start, with spot capacity there, it runs on it": {
			runpolicy.View{TimeLeft: 20 * time.Hour, WorkLeft: 10 * time.Hour, Data: -1, Zones: []runpolicy.Zone{up}}, spot},
		"without spot capacity and with ten hours to spare it waits": {
			runpolicy.View{TimeLeft: 20 * time.Hour, WorkLeft: 10 * time.Hour, Data: -1, Zones: []runpolicy.Zone{down}}, idle},
		"without spot capacity and with nothing to spare but the start it runs on demand": {
			runpolicy.View{Elapsed: 9 * time.Hour, TimeLeft: 10*time.Hour + 12*time.Minute, WorkLeft: 10 * time.Hour, Data: 0, Zones: []runpolicy.Zone{down}}, onDemand},
		"with nothing to spare it does not trust spot capacity either": {
			runpolicy.View{Elapsed: 9 * time.Hour, TimeLeft: 10*time.Hour + 6*time.Minute, WorkLeft: 10 * time.Hour, Data: 0, Zones: []runpolicy.Zone{up}}, onDemand},
		"spot capacity that costs more than on demand is not taken": {
			runpolicy.View{TimeLeft: 20 * time.Hour, WorkLeft: 10 * time.Hour, Data: -1, Zones: []runpolicy.Zone{dear}}, idle},
		"on spot capacity with time to spare it stays": {
			runpolicy.View{Elapsed: time.Hour, TimeLeft: 19 * time.Hour, WorkLeft: 9 * time.Hour, Current: spot, Data: 0, Zones: []runpolicy.Zone{up, zone("r-2a", true)}}, spot},
	} {
		t.Run(name, func(t *testing.T) {
			if got := decide(t, c.view); got.Capacity != c.want.Capacity || got.Capacity != runpolicy.Idle && got.Zone != c.want.Zone {
				t.Errorf("%s in zone %d, want %s in zone %d", got.Capacity, got.Zone, c.want.Capacity, c.want.Zone)
			}
		})
	}
}

func TestAJobWithoutMeaningIsRefusedByItsField(t *testing.T) {
	for field, change := range map[string]func(*runpolicy.Job){
		"Work":     func(j *runpolicy.Job) { j.Work = 0 },
		"Deadline": func(j *runpolicy.Job) { j.Deadline = -time.Hour },
		"Step":     func(j *runpolicy.Job) { j.Step = 0 },
		"Restart":  func(j *runpolicy.Job) { j.Restart = -time.Second },
		"MoveUSD":  func(j *runpolicy.Job) { j.MoveUSD = -1 },
	} {
		bad := job
		change(&bad)
		if _, err := runpolicy.New(bad); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: error %v, want one that names the field", field, err)
		}
	}
}
