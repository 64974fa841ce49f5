// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/spotbench/spotbench/pkg/catalog"
)

func TestAMachinesLifeIsToldInPiecesByManyAndReadBackWhole(t *testing.T) {
	s := newStore(t)
	want := catalog.Instance{UID: "node-1", Node: "h100-0", Provider: "aws", Region: "r", Zone: "z", InstanceType: "p5.48xlarge", CapacityType: "spot",
		StartedAt: start, SeenAt: start.Add(9 * time.Minute), RebalanceAt: start.Add(5 * time.Minute), NoticeAt: start.Add(8 * time.Minute)}
	about := catalog.Instance{Node: want.Node, Provider: want.Provider, Region: want.Region, Zone: want.Zone, InstanceType: want.InstanceType, CapacityType: want.CapacityType, StartedAt: start}
	var wg sync.WaitGroup
	errs := make([]error, 10)
	for minute := range 10 {
		wg.Go(func() {
			update := about
			update.SeenAt = start.Add(time.Duration(minute) * time.Minute)
			switch minute {
			case 5:
				update.RebalanceAt = update.SeenAt
			case 8:
				update.NoticeAt = update.SeenAt
			}
			_, errs[minute] = s.PutInstance(t.Context(), "node-1", update)
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	page, err := s.ListInstances(t.Context(), catalog.InstanceQuery{InstanceType: "p5.48xlarge"})
	if err != nil || len(page.Items) != 1 {
		t.Fatalf("%d machines, %v, want the one", len(page.Items), err)
	}
	if diff := cmp.Diff(want, page.Items[0]); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
	if _, err := s.PutInstance(t.Context(), "node-1", catalog.Instance{CapacityType: "cheap"}); !errors.Is(err, catalog.ErrInvalid) {
		t.Errorf("capacity type cheap: %v, want ErrInvalid", err)
	}
}

func TestMachinesAreListedPageByPageTheYoungestFirstAndByPool(t *testing.T) {
	s := newStore(t)
	for n := range 7 {
		i := catalog.Instance{Node: fmt.Sprint("n", n), Provider: "aws", Region: "r", Zone: []string{"a", "b"}[n%2], CapacityType: "spot", StartedAt: start.Add(time.Duration(n/2) * time.Hour)}
		if _, err := s.PutInstance(t.Context(), fmt.Sprint("u", n), i); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	query := catalog.InstanceQuery{Limit: 3}
	for {
		page, err := s.ListInstances(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range page.Items {
			got = append(got, i.UID)
		}
		if query.PageToken = page.NextPageToken; query.PageToken == "" {
			break
		}
	}
	if diff := cmp.Diff([]string{"u6", "u5", "u4", "u3", "u2", "u1", "u0"}, got); diff != "" {
		t.Errorf("the pages together (-want +got):\n%s", diff)
	}
	if _, err := s.PutInstance(t.Context(), "on-demand", catalog.Instance{CapacityType: "on-demand", StartedAt: start, SeenAt: start.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutInstance(t.Context(), "u6", catalog.Instance{SeenAt: start.Add(4 * time.Hour)}); err != nil {
		t.Fatal(err)
	}
	for since, want := range map[time.Duration]int{4 * time.Hour: 1, 4*time.Hour + time.Second: 0} {
		if lives, err := s.Lives(t.Context(), start.Add(since)); err != nil || len(lives) != want {
			t.Errorf("%d lives of spot machines seen %s after the start or later, %v, want %d", len(lives), since, err, want)
		}
	}
	page, err := s.ListInstances(t.Context(), catalog.InstanceQuery{Zone: "b"})
	if err != nil || len(page.Items) != 3 {
		t.Errorf("%d machines in zone b, %v, want 3", len(page.Items), err)
	}
}

func TestTheReportOnSavingsIsThatOfTheRunsSegments(t *testing.T) {
	s := newStore(t)
	for _, key := range []string{"team-a/one-11111111", "team-b/two-22222222"} {
		put(t, s, key, catalog.Run{Namespace: key[:6], Model: "org/m"})
		for n, uid := range []string{"u1", "u2"} {
			if _, err := s.PutSegment(t.Context(), key, uid, catalog.Segment{Region: "r", Zone: "z", InstanceType: "t", CapacityType: "spot", USDPerHour: 2, OnDemandUSDPerHour: 5,
				StartedAt: start.Add(time.Duration(n) * time.Hour), EndedAt: start.Add(time.Duration(n+1) * time.Hour)}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.PutInterruption(t.Context(), key, "n1", catalog.Interruption{PodUID: "u1", WorkLostSeconds: ptr(360.0)}); err != nil {
			t.Fatal(err)
		}
	}
	report, err := s.Savings(t.Context(), catalog.SavingsQuery{By: catalog.ByPool, Namespace: "team-a"})
	if err != nil {
		t.Fatal(err)
	}
	// 2 h × $2 paid; 1.9 h × $5 on demand, because 6 min were done twice.
	got := report.Total
	if got.Runs != 1 || got.PaidUSD != 4 || got.OnDemandUSD != 9.5 || got.Interruptions != 1 || got.WorkLostSeconds != 360 {
		t.Errorf("total of team-a %+v, want one run, $4 paid, $9.50 on demand, 360 s lost in one interruption", got)
	}
	if len(report.Lines) != 1 || report.Lines[0].Key != "r/z/t/spot" {
		t.Errorf("lines %+v, want the one of r/z/t/spot", report.Lines)
	}
	first, err := s.Savings(t.Context(), catalog.SavingsQuery{By: catalog.ByRun, To: start.Add(30 * time.Minute)})
	if err != nil || len(first.Lines) != 2 || first.Total.PaidUSD != 2 || first.Total.Interruptions != 0 {
		t.Errorf("the first half hour: %+v, %v, want $1 of each run and no interruption yet", first, err)
	}
	if _, err := s.Savings(t.Context(), catalog.SavingsQuery{By: "colour"}); !errors.Is(err, catalog.ErrInvalid) {
		t.Errorf("by colour: %v, want ErrInvalid", err)
	}
}
