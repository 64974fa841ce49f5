// SPDX-License-Identifier: Apache-2.0

package replay_test

import (
	"errors"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/spotbench/spotbench/bench/placement/internal/openb"
	"github.com/spotbench/spotbench/bench/placement/internal/policy"
	"github.com/spotbench/spotbench/bench/placement/internal/replay"
)

func cluster(t *testing.T) *policy.Cluster {
	t.Helper()
	c, err := policy.NewCluster([]openb.Node{{Name: "n", CPUMilli: 1000, MemoryMiB: 1, GPUs: 4, Model: "G"}}, []int{0})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// scripted gives these GPUs to one pod after another; nil places it nowhere.
type scripted [][]int

func (s *scripted) Choose(openb.Pod) (int, []int, bool, error) {
	gpus := (*s)[0]
	*s = (*s)[1:]
	return 0, gpus, gpus != nil, nil
}

func TestTheCurveIsTheMeanAllocationOverTheArrivalsOfALoad(t *testing.T) {
	// Four GPUs. Arrived: 25, 25 (a pod without GPUs), 75, 100 %. Allocated: 25, 25, 25, 50.
	arrivals := []openb.Pod{
		{Name: "a", GPUs: 1, GPUMilli: 1000},
		{Name: "b"},
		{Name: "c", GPUs: 2, GPUMilli: 1000},
		{Name: "d", GPUs: 1, GPUMilli: 1000},
	}
	curve, err := replay.Run(cluster(t), &scripted{{0}, {}, nil, {1}}, arrivals)
	if err != nil {
		t.Fatal(err)
	}
	if len(curve) != 101 || curve[25] != 25 || curve[75] != 25 || curve[100] != 50 || !math.IsNaN(curve[50]) {
		t.Errorf("%d loads, @25 %v, @50 %v, @75 %v, @100 %v", len(curve), curve[25], curve[50], curve[75], curve[100])
	}
}

func TestAPolicyThatOvercommitsIsCaught(t *testing.T) {
	arrivals := []openb.Pod{{Name: "a", GPUs: 1, GPUMilli: 600}, {Name: "b", GPUs: 1, GPUMilli: 600}}
	_, err := replay.Run(cluster(t), &scripted{{0}, {0}}, arrivals)
	if want := "pod b: n: GPU 0 has not the 600 milli the pod asks for"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

type broken struct{}

func (broken) Choose(openb.Pod) (int, []int, bool, error) { return 0, nil, false, errors.New("broken") }

func TestThePolicysErrorNamesThePod(t *testing.T) {
	_, err := replay.Run(cluster(t), broken{}, []openb.Pod{{Name: "a"}})
	if want := "pod a: broken"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestTheMeanGoesAsFarAsTheShortestCurve(t *testing.T) {
	got := replay.Mean([]replay.Curve{{10, 20, 30}, {20, 40}})
	if diff := cmp.Diff(replay.Curve{15, 30}, got, cmpopts.EquateApprox(0, 1e-9)); diff != "" {
		t.Error(diff)
	}
	if replay.Mean(nil) != nil {
		t.Error("the mean of nothing is nothing")
	}
}
