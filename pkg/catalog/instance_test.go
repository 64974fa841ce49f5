// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/spotbench/spotbench/pkg/catalog"
)

func TestAMachineLivesUntilItIsTakenBackOrLastSeen(t *testing.T) {
	start := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		instance    catalog.Instance
		lived       time.Duration
		interrupted bool
	}{
		"one that still runs": {catalog.Instance{StartedAt: start, SeenAt: start.Add(3 * time.Hour)}, 3 * time.Hour, false},
		"one that was announced to go and was not seen after the notice's window": {
			catalog.Instance{StartedAt: start, SeenAt: start.Add(2*time.Hour + 2*time.Minute), NoticeAt: start.Add(2 * time.Hour)}, 2 * time.Hour, true},
		"one whose notice came after its last sign of life": {
			catalog.Instance{StartedAt: start, SeenAt: start.Add(time.Hour), NoticeAt: start.Add(64 * time.Minute)}, 64 * time.Minute, true},
		"one that is there half an hour after the notice, which was withdrawn therefore": {
			catalog.Instance{StartedAt: start, SeenAt: start.Add(150 * time.Minute), NoticeAt: start.Add(2 * time.Hour)}, 150 * time.Minute, false},
		"one without a start, of which no age is known": {catalog.Instance{SeenAt: start}, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			if _, interrupted := c.instance.Interrupted(); interrupted != c.interrupted {
				t.Errorf("interrupted: %v, want %v", interrupted, c.interrupted)
			}
			if lived := c.instance.Lived(); lived != c.lived {
				t.Errorf("lived %s, want %s", lived, c.lived)
			}
		})
	}
}

func TestWhatIsKnownOfAMachineDoesNotDependOnTheOrderInWhichItIsTold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		moment := rapid.Custom(func(t *rapid.T) time.Time {
			if rapid.Bool().Draw(t, "absent") {
				return time.Time{}
			}
			return time.Unix(int64(rapid.IntRange(1, 1000).Draw(t, "second")), 0).UTC()
		})
		update := rapid.Custom(func(t *rapid.T) catalog.Instance {
			return catalog.Instance{StartedAt: moment.Draw(t, "start"), SeenAt: moment.Draw(t, "seen"), RebalanceAt: moment.Draw(t, "rebalance"), NoticeAt: moment.Draw(t, "notice")}
		})
		updates := rapid.SliceOfN(update, 1, 5).Draw(t, "updates")
		var there, back catalog.Instance
		for i := range updates {
			there, back = there.Merge(updates[i]), back.Merge(updates[len(updates)-1-i])
		}
		if diff := cmp.Diff(there, back); diff != "" {
			t.Errorf("told backwards, it differs:\n%s", diff)
		}
	})
}

func TestAMachineThatCannotBeIsRefusedByItsField(t *testing.T) {
	start := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for want, i := range map[string]catalog.Instance{
		"seenAt":       {StartedAt: start, SeenAt: start.Add(-time.Second)},
		"noticeAt":     {StartedAt: start, NoticeAt: start.Add(-time.Second)},
		"capacityType": {CapacityType: "cheap"},
	} {
		if err := i.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want one that names %s", i, err, want)
		}
	}
}
