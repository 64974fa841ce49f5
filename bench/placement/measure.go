// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"math/rand"
	"runtime"
	"strconv"

	"golang.org/x/sync/errgroup"

	"github.com/spotbench/spotbench/bench/placement/internal/openb"
	"github.com/spotbench/spotbench/bench/placement/internal/policy"
	"github.com/spotbench/spotbench/bench/placement/internal/replay"
)

// names of every policy, ours first.
func names() []string { return append([]string{ours}, policy.Names()...) }

// measure runs one policy over all seeds, as many at once as there are cores.
func (e experiment) measure(t trace, name string) (result, error) {
	curves := make([]replay.Curve, len(e.seeds))
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, seed := range e.seeds {
		group.Go(func() (err error) {
			curves[i], err = e.replay(t, name, seed)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return result{}, err
	}
	r := result{Policy: name, Trace: t.name, Ties: string(e.ties), Whole: e.settings.whole, Seeds: e.seeds,
		Alloc: map[string]float64{}, curve: replay.Mean(curves)}
	for _, load := range loads {
		if load < len(r.curve) && !math.IsNaN(r.curve[load]) {
			r.Alloc[strconv.Itoa(load)] = math.Round(100*r.curve[load]) / 100
		}
	}
	return r, nil
}

func (e experiment) replay(t trace, name string, seed int64) (replay.Curve, error) {
	arrivals, rank := openb.Arrivals(t.pods, openb.Capacity(e.nodes), len(e.nodes), seed, e.load)
	cluster, err := policy.NewCluster(e.nodes, rank)
	if err != nil {
		return nil, err
	}
	random := rand.New(rand.NewSource(seed)) //nolint:gosec // a policy's dice, the same for the same seed
	if name == ours {
		p, err := newOurs(e.nodes, rank)
		if err != nil {
			return nil, err
		}
		return replay.Run(cluster, p, arrivals)
	}
	p, err := policy.New(name, cluster, t.pods, e.ties, random)
	if err != nil {
		return nil, err
	}
	return replay.Run(cluster, p, arrivals)
}
