// SPDX-License-Identifier: Apache-2.0

// Package riskfeed keeps what the catalog has observed of interruptions at hand for
// decisions that must not wait: it is refreshed in the background, and while the
// catalog is away the last answer stays good. Hazards follow from the catalog's
// evidence and our own priors, so that these are kept in one place only.
package riskfeed

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	"k8s.io/klog/v2"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/risk"
)

// Source gives all risks that were learned; the catalog's client does.
type Source interface {
	ListRisks(ctx context.Context) ([]catalog.PoolRisk, error)
}

// Feed is safe for concurrent use; Run fills it.
type Feed struct {
	source Source
	priors risk.Book
	now    func() time.Time
	state  atomic.Pointer[state]
}

type state struct {
	pools map[gpu.Pool]risk.ByAge
	// told are the hazards when they were last said to have changed.
	told map[gpu.Pool]risk.ByAge
	asOf time.Time
}

// New makes a feed that knows nothing yet but the priors.
func New(source Source, priors risk.Book) *Feed {
	f := &Feed{source: source, priors: priors, now: time.Now}
	f.state.Store(&state{})
	return f
}

// Ages is the hazard by age that was learned of a pool; ok is false when nothing
// was. It never waits.
func (f *Feed) Ages(pool gpu.Pool) (ages risk.ByAge, ok bool) {
	ages, ok = f.state.Load().pools[pool]
	return ages, ok
}

// AsOf is when the catalog was last heard; zero when never.
func (f *Feed) AsOf() time.Time { return f.state.Load().asOf }

// Refresh asks the source once. changed has the pools whose hazard is another now.
func (f *Feed) Refresh(ctx context.Context) (changed []gpu.Pool, err error) {
	risks, err := f.source.ListRisks(ctx)
	if err != nil {
		return nil, err
	}
	learned, observed := risk.NewPools(f.priors), []gpu.Pool{}
	for _, r := range risks {
		if len(r.HazardByAge) != risk.Pieces || r.Machines == 0 {
			continue // of a catalog with other pieces; what is assumed of the pool holds
		}
		var hours, interruptions risk.ByAge
		for i, piece := range r.HazardByAge {
			hours[i], interruptions[i] = piece.InstanceHours, piece.Interruptions
		}
		pool := gpu.Pool{Provider: r.Provider, Region: r.Region, Zone: r.Zone, InstanceType: r.InstanceType, CapacityType: r.CapacityType}
		learned.Of(pool).ObserveByAge(pool, hours, interruptions)
		observed = append(observed, pool)
	}
	next := &state{pools: map[gpu.Pool]risk.ByAge{}, told: map[gpu.Pool]risk.ByAge{}, asOf: f.now()}
	told := f.state.Load().told
	for _, pool := range observed {
		ages := learned.Of(pool).Posterior(pool).Hazard
		next.pools[pool], next.told[pool] = ages, told[pool]
		if before, known := told[pool]; !known || differs(before, ages) {
			changed = append(changed, pool)
			next.told[pool] = ages
		}
	}
	for pool := range told {
		if _, still := next.pools[pool]; !still {
			changed = append(changed, pool)
		}
	}
	f.state.Store(next)
	return changed, nil
}

// differs says whether a hazard changed by more than a hundredth at any age: old
// evidence counts a little less every minute, which is nothing to act on.
func differs(before, now risk.ByAge) bool {
	for i := range now {
		if math.Abs(now[i]-before[i]) > before[i]/100 {
			return true
		}
	}
	return false
}

// Run refreshes now and then at the interval until ctx ends. That the catalog is
// away is logged once, and once that it is back. after is called with each answer,
// with the pools whose hazard it changed.
func (f *Feed) Run(ctx context.Context, interval time.Duration, after func([]gpu.Pool)) {
	logger := klog.FromContext(ctx)
	ticks := time.NewTicker(interval)
	defer ticks.Stop()
	for away := false; ; {
		one, cancel := context.WithTimeout(ctx, interval)
		changed, err := f.Refresh(one)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !away:
			logger.Error(err, "The catalog's risks are not to be had: those known last, else the assumed ones hold", "lastHeard", lastHeard(f.AsOf()))
		case err == nil && away:
			logger.Info("The catalog's risks are back")
		}
		away = err != nil
		if err == nil {
			after(changed)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
	}
}

func lastHeard(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format(time.RFC3339)
}
