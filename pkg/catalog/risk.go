// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/risk"
)

// RiskHalfLife is how long it takes until a machine's life counts half: markets
// change within weeks.
const RiskHalfLife = 14 * 24 * time.Hour

// RiskWindow is how far back lives are looked at; what is older weighs less than 2 %.
const RiskWindow = 6 * RiskHalfLife

// AgeHazard is the hazard of machines of an age.
type AgeHazard struct {
	FromHours     float64 `json:"fromHours" doc:"Youngest age, hours"`
	ToHours       float64 `json:"toHours,omitempty" doc:"Oldest age, hours; absent for the last piece, which has none"`
	PerHour       float64 `json:"perHour" doc:"Interruptions per hour, mean of the posterior"`
	Low           float64 `json:"low" doc:"Lower end of its 90 % credible interval"`
	High          float64 `json:"high" doc:"Upper end of its 90 % credible interval"`
	InstanceHours float64 `json:"instanceHours" doc:"Observed time of machines of this age, hours; older observations count less"`
	Interruptions float64 `json:"interruptions" doc:"Observed interruptions at this age, weighed alike"`
}

// PoolRisk is how likely machines of a pool are taken back, and what that is known from.
type PoolRisk struct {
	Provider     string `json:"provider"`
	Region       string `json:"region"`
	Zone         string `json:"zone"`
	InstanceType string `json:"instanceType"`
	CapacityType string `json:"capacityType"`

	MeanHours     float64     `json:"meanHours,omitempty" doc:"Mean time to an interruption of a new machine, hours; absent when there are none"`
	HazardByAge   []AgeHazard `json:"hazardByAge" nullable:"false" doc:"The hazard, by how long a machine has run"`
	InstanceHours float64     `json:"instanceHours" doc:"Observed time of its machines, hours; older observations count less"`
	Interruptions float64     `json:"interruptions" doc:"Observed interruptions, weighed alike"`
	Machines      int         `json:"machines" doc:"Machines that were observed"`
	PriorPerHour  float64     `json:"priorPerHour" doc:"What was assumed before anything was observed, interruptions per hour"`
	PriorSource   string      `json:"priorSource" doc:"Where that is from"`
	AsOf          time.Time   `json:"asOf" doc:"When it was reckoned"`
}

// RiskQuery says of which pools; what is empty matches all. A query that names
// provider and instance type is answered also where nothing was observed.
type RiskQuery struct {
	Provider, Region, Zone, InstanceType, CapacityType string
}

func (q RiskQuery) matches(p gpu.Pool) bool {
	match := func(want, have string) bool { return want == "" || want == have }
	return match(q.Provider, p.Provider) && match(q.Region, p.Region) && match(q.Zone, p.Zone) &&
		match(q.InstanceType, p.InstanceType) && match(q.CapacityType, p.CapacityType)
}

// Pool is the pool the machine comes from.
func (i Instance) Pool() gpu.Pool {
	return gpu.Pool{Provider: i.Provider, Region: i.Region, Zone: i.Zone, InstanceType: i.InstanceType, CapacityType: i.CapacityType}
}

// refusedLaunchWeight is what a refused launch counts for, of an interruption: an
// autoscaler tries again every few minutes, and lack of capacity is one lack.
const refusedLaunchWeight = 0.25

// ReckonRisk learns the hazard of each spot pool from the lives of its machines,
// starting from the priors. Pools with the same prior learn from each other how the
// hazard changes with a machine's age.
func ReckonRisk(machines []Instance, priors risk.Book, query RiskQuery, now time.Time) []PoolRisk {
	learned := risk.NewPools(priors)
	seen := map[gpu.Pool]int{}
	machines = slices.SortedFunc(slices.Values(machines), func(a, b Instance) int {
		return cmp.Or(lastSign(a).Compare(lastSign(b)), cmp.Compare(a.UID, b.UID))
	})
	at := now.Add(-RiskWindow)
	for _, m := range machines {
		end := lastSign(m)
		if m.CapacityType != gpu.Spot || end.Before(at) || end.After(now) || m.StartedAt.IsZero() {
			continue
		}
		learned.Decay(end.Sub(at), RiskHalfLife)
		at = end
		_, interrupted := m.Interrupted()
		if m.LaunchRefused() {
			learned.Of(m.Pool()).FailedLaunch(m.Pool(), refusedLaunchWeight)
		} else {
			learned.Of(m.Pool()).Observe(m.Pool(), 0, m.Lived(), interrupted, 1)
		}
		seen[m.Pool()]++
	}
	learned.Decay(now.Sub(at), RiskHalfLife)
	asked := gpu.Pool{Provider: query.Provider, Region: query.Region, Zone: query.Zone, InstanceType: query.InstanceType, CapacityType: gpu.Spot}
	out := []PoolRisk{}
	for pool := range seen {
		if query.matches(pool) {
			out = append(out, describe(pool, learned, seen[pool], now))
		}
	}
	if len(out) == 0 && query.Provider != "" && query.InstanceType != "" && query.CapacityType != gpu.OnDemand {
		out = append(out, describe(asked, learned, 0, now))
	}
	slices.SortFunc(out, func(a, b PoolRisk) int {
		return cmp.Or(cmp.Compare(a.Provider, b.Provider), cmp.Compare(a.Region, b.Region), cmp.Compare(a.Zone, b.Zone), cmp.Compare(a.InstanceType, b.InstanceType))
	})
	return out
}

// lastSign is when the machine was interrupted or, if it was not, last seen.
func lastSign(i Instance) time.Time {
	if at, ok := i.Interrupted(); ok {
		return at
	}
	return i.SeenAt
}

func describe(pool gpu.Pool, learned *risk.Pools, machines int, now time.Time) PoolRisk {
	posterior, prior := learned.Of(pool).Posterior(pool), learned.Prior(pool)
	p := PoolRisk{Provider: pool.Provider, Region: pool.Region, Zone: pool.Zone, InstanceType: pool.InstanceType, CapacityType: pool.CapacityType,
		InstanceHours: posterior.Hours, Interruptions: posterior.Interruptions, Machines: machines,
		PriorPerHour: float64(prior.Hazard), PriorSource: prior.Source, AsOf: now.UTC()}
	if mean := posterior.Hazard.MeanHours(0); !math.IsInf(mean, 0) {
		p.MeanHours = mean
	}
	from := time.Duration(0)
	for i := range risk.Pieces {
		a := AgeHazard{FromHours: from.Hours(), PerHour: posterior.Hazard[i],
			InstanceHours: posterior.HoursByAge[i], Interruptions: posterior.InterruptionsByAge[i]}
		if a.PerHour > 0 {
			a.Low, a.High = posterior.Interval(from, 0.9)
		}
		if i < risk.Pieces-1 {
			from += risk.PieceWidth(i)
			a.ToHours = from.Hours()
		}
		p.HazardByAge = append(p.HazardByAge, a)
	}
	return p
}
