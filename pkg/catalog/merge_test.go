// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// Updates are retried, so one that arrives twice must do what it does once.
func TestMergingAnUpdateTwiceIsMergingItOnce(t *testing.T) {
	word := rapid.SampledFrom([]string{"", "a", "b"})
	moment := rapid.Custom(func(t *rapid.T) time.Time {
		if hours := rapid.IntRange(0, 3).Draw(t, "hours"); hours > 0 {
			return noon.Add(time.Duration(hours) * time.Hour)
		}
		return time.Time{}
	})
	run := rapid.Custom(func(t *rapid.T) catalog.Run {
		return catalog.Run{Model: word.Draw(t, "model"), Node: word.Draw(t, "node"), GPUCount: rapid.IntRange(0, 2).Draw(t, "gpus"),
			Status:    rapid.SampledFrom([]catalog.Status{"", catalog.Running, catalog.Interrupted, catalog.Failed, catalog.Succeeded}).Draw(t, "status"),
			StartedAt: moment.Draw(t, "start"), FinishedAt: moment.Draw(t, "end")}
	})
	rapid.Check(t, func(t *rapid.T) {
		before, update := run.Draw(t, "before"), run.Draw(t, "update")
		once := before.Merge(update)
		if diff := cmp.Diff(once, once.Merge(update)); diff != "" {
			t.Fatalf("(-once +twice)\n%s", diff)
		}
		if before.Status == catalog.Succeeded && once.Status != catalog.Succeeded {
			t.Fatalf("success was taken back: %+v", once)
		}
	})
}

func TestARunThatIsTriedAgainHasNoEndYet(t *testing.T) {
	failed := catalog.Run{Status: catalog.Failed, StartedAt: noon, FinishedAt: noon.Add(time.Hour)}
	if got := failed.Merge(catalog.Run{Status: catalog.Running}); !got.FinishedAt.IsZero() || got.Status != catalog.Running {
		t.Errorf("%+v", got)
	}
}
