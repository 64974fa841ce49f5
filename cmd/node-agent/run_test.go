// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"testing"
	"time"

	"github.com/spotbench/spotbench/pkg/interruption"
)

func TestWhichEventsAreActedUpon(t *testing.T) {
	seen := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	recommended := interruption.Event{Notice: interruption.Notice{ID: "i-1-rebalance-a", CloudID: "c", Provider: interruption.AWS, Kind: interruption.KindRebalance, SeenAt: seen}}
	over := recommended
	over.Withdrawn = true
	reclaim := interruption.Event{Notice: interruption.Notice{ID: "i-1-spot-b", Provider: interruption.AWS, Kind: interruption.KindSpot, Action: "terminate", SeenAt: seen, Deadline: seen.Add(time.Minute)}}
	leave := interruption.Event{Notice: interruption.Notice{ID: "i-1-rebalance-a-leave", Provider: interruption.AWS, Kind: interruption.KindTermination, Action: "rebalance", SeenAt: seen, Deadline: seen.Add(2 * time.Minute)}}
	stay := leave
	stay.Withdrawn = true
	tests := map[string]struct {
		event interruption.Event
		leave bool
		want  []interruption.Event
	}{
		"a recommendation leaves the pods where they are": {recommended, false, []interruption.Event{recommended}},
		"one that is followed is the pods' end there":     {recommended, true, []interruption.Event{recommended, leave}},
		"both are over together":                          {over, true, []interruption.Event{over, stay}},
		"a reclaim is a reclaim":                          {reclaim, true, []interruption.Event{reclaim}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := followed(tt.event, tt.leave); !slices.Equal(got, tt.want) {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
		})
	}
}
