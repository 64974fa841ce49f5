// SPDX-License-Identifier: Apache-2.0

package riskfeed_test

import (
	"context"
	"encoding/json"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/client"
	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/risk"
	"github.com/spotbench/spotbench/pkg/riskfeed"
)

var pool = gpu.Pool{Provider: "aws", Region: "r", Zone: "z", InstanceType: "p5", CapacityType: gpu.Spot}

func learned(p gpu.Pool, perHour float64) catalog.PoolRisk {
	r := catalog.PoolRisk{Provider: p.Provider, Region: p.Region, Zone: p.Zone, InstanceType: p.InstanceType, CapacityType: p.CapacityType, Machines: 1000}
	for range risk.Pieces { // so much evidence that the prior is forgotten
		r.HazardByAge = append(r.HazardByAge, catalog.AgeHazard{InstanceHours: 1e6, Interruptions: 1e6 * perHour})
	}
	return r
}

func TestTheFeedReadsTheCatalogsOwnAnswerAndKeepsTheLastWhileItIsAway(t *testing.T) {
	var down atomic.Bool
	perHour := 0.25
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if down.Load() || r.URL.Path != "/v1/risk" {
			http.Error(w, "gone", http.StatusServiceUnavailable)
			return
		}
		other := learned(gpu.Pool{Provider: "gcp"}, 1)
		other.HazardByAge = other.HazardByAge[:2] // pieces of another version
		_ = json.NewEncoder(w).Encode(catalog.Page[catalog.PoolRisk]{Items: []catalog.PoolRisk{learned(pool, perHour), other}})
	}))
	defer server.Close()
	c, err := client.New(server.URL, server.Client(), nil)
	if err != nil {
		t.Fatal(err)
	}
	c.SetRetries(1, 0)
	feed := riskfeed.New(c, risk.Book{})
	if _, ok := feed.Ages(pool); ok || !feed.AsOf().IsZero() {
		t.Error("it knows something before it asked")
	}
	changed, err := feed.Refresh(t.Context())
	if err != nil || len(changed) != 1 || changed[0] != pool {
		t.Fatalf("changed %v, %v, want the one pool", changed, err)
	}
	if ages, ok := feed.Ages(pool); !ok || math.Abs(ages[0]-0.25) > 0.001 {
		t.Errorf("ages %v, %v, want 0.25 per hour", ages, ok)
	}
	if _, ok := feed.Ages(gpu.Pool{Provider: "gcp"}); ok {
		t.Error("pieces that mean something else were taken")
	}
	down.Store(true)
	if _, err := feed.Refresh(t.Context()); err == nil {
		t.Error("no error while the catalog is away")
	}
	if ages, ok := feed.Ages(pool); !ok || math.Abs(ages[0]-0.25) > 0.001 {
		t.Errorf("while the catalog is away: %v, %v, want what was known last", ages, ok)
	}
	down.Store(false)
	if changed, err = feed.Refresh(t.Context()); err != nil || len(changed) != 0 {
		t.Errorf("nothing changed, but: %v, %v", changed, err)
	}
	perHour *= 1.005 // too little to wake anybody
	if changed, err = feed.Refresh(t.Context()); err != nil || len(changed) != 0 {
		t.Errorf("half a hundredth more: changed %v, %v, want none", changed, err)
	}
	perHour = 0.5
	if changed, err = feed.Refresh(t.Context()); err != nil || len(changed) != 1 {
		t.Errorf("the hazard doubled: changed %v, %v, want the pool", changed, err)
	}
}

// flaky fails while it is down.
type flaky struct {
	down  atomic.Bool
	asked atomic.Int32
}

func (f *flaky) ListRisks(context.Context) ([]catalog.PoolRisk, error) {
	f.asked.Add(1)
	if f.down.Load() {
		return nil, http.ErrServerClosed
	}
	return []catalog.PoolRisk{learned(pool, 0.1)}, nil
}

func TestLittleEvidenceMovesOurOwnPriorALittle(t *testing.T) {
	book, err := risk.ParseBook([]byte("defaults: {aws: {perHour: 0.02, source: assumed}}"))
	if err != nil {
		t.Fatal(err)
	}
	r := learned(pool, 0)
	for i := range r.HazardByAge {
		r.HazardByAge[i] = catalog.AgeHazard{PerHour: 5, InstanceHours: 0.1} // the catalog's own prior is another
	}
	feed := riskfeed.New(fixed{r}, book)
	if _, err := feed.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	ages, _ := feed.Ages(pool)
	prior := risk.HeavyTailed(0.02)
	for i := range ages {
		if ages[i] > prior[i] || ages[i] < 0.9*prior[i] {
			t.Errorf("piece %d: %.4f per hour, want a little less than our prior's %.4f", i, ages[i], prior[i])
		}
	}
}

type fixed []catalog.PoolRisk

func (f fixed) ListRisks(context.Context) ([]catalog.PoolRisk, error) { return f, nil }

func TestAnHourWithoutTheCatalogIsSaidOnceAndItsReturnOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logger := ktesting.NewLogger(t, ktesting.NewConfig(ktesting.BufferLogs(true)))
		sink, ok := logger.GetSink().(ktesting.Underlier)
		if !ok {
			t.Fatal("the logger keeps no lines")
		}
		ctx, cancel := context.WithCancel(context.Background())
		source := new(flaky)
		source.down.Store(true)
		feed := riskfeed.New(source, risk.Book{})
		done := make(chan struct{})
		var changes int
		go func() {
			defer close(done)
			feed.Run(withLogger(ctx, logger), time.Minute, func(changed []gpu.Pool) { changes += len(changed) })
		}()
		time.Sleep(time.Hour + time.Second)
		source.down.Store(false)
		time.Sleep(time.Hour)
		cancel()
		<-done
		log := sink.GetBuffer().String()
		if away, back := strings.Count(log, "not to be had"), strings.Count(log, "are back"); away != 1 || back != 1 {
			t.Errorf("said %d times that it is away and %d times that it is back, want once each:\n%s", away, back, log)
		}
		if asked := source.asked.Load(); asked != 121 || changes != 1 {
			t.Errorf("asked %d times in two hours, %d changes, want 121 (once a minute) and 1", asked, changes)
		}
	})
}

func withLogger(ctx context.Context, logger klog.Logger) context.Context {
	return klog.NewContext(ctx, logger)
}
