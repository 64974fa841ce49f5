// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// SavingsBy is what the lines of a report on savings stand for.
type SavingsBy string

// The ways to break a report down.
const (
	ByModel     SavingsBy = "model"
	ByPool      SavingsBy = "pool"
	ByNamespace SavingsBy = "namespace"
	ByMonth     SavingsBy = "month"
	ByRun       SavingsBy = "run"
)

// SavingsQuery says what to report on. Zero times mean from ever, and until now.
type SavingsQuery struct {
	By               SavingsBy
	From, To         time.Time
	Model, Namespace string
}

// Validate says what is wrong with the query.
func (q SavingsQuery) Validate() error {
	switch q.By {
	case ByModel, ByPool, ByNamespace, ByMonth, ByRun:
	default:
		return fmt.Errorf("by %q is unknown; use model, pool, namespace, month or run", q.By)
	}
	return inOrder("from", q.From, "to", q.To)
}

// Spending is one pod's stretch of a run, with what its interruption took from it.
type Spending struct {
	RunKey, Model, Namespace string
	Segment                  Segment
	// Interruptions of this pod, and the work done that they lost, seconds.
	Interruptions   int
	WorkLostSeconds float64
}

// Savings is a sum over spendings. A run saves by paying spot prices and loses by
// doing work twice: on demand, nothing would have been done twice, so on demand is
// reckoned without the work that was lost.
type Savings struct {
	Key             string  `json:"key" doc:"The model, pool, namespace, month or run; empty in the total"`
	Runs            int     `json:"runs" doc:"Runs that spent something here; a run counts in each line it spent in"`
	Hours           float64 `json:"hours" doc:"Time paid for, hours"`
	PaidUSD         float64 `json:"paidUSD" doc:"Σ hours × price, USD"`
	ComparedUSD     float64 `json:"comparedUSD" doc:"Of paidUSD, what was paid where the on-demand price is known too, USD"`
	OnDemandUSD     float64 `json:"onDemandUSD" doc:"Σ (hours - work lost) × on-demand price, USD: the same work on capacity that is not interrupted"`
	BoundUSD        float64 `json:"boundUSD" doc:"Σ (hours - work lost) × price, USD: what would have been paid had nothing been lost"`
	SavedPercent    float64 `json:"savedPercent" doc:"100 × (1 - comparedUSD/onDemandUSD); 0 where onDemandUSD is 0"`
	BoundPercent    float64 `json:"boundPercent" doc:"100 × (1 - boundUSD/onDemandUSD): what the discount allows at most"`
	Interruptions   int     `json:"interruptions" doc:"Pods that were interrupted"`
	WorkLostSeconds float64 `json:"workLostSeconds" doc:"Work done twice because of them, seconds"`
	UnpricedHours   float64 `json:"unpricedHours" doc:"Of the hours, those without a price; they are in no sum of money"`
	UncomparedHours float64 `json:"uncomparedHours" doc:"Of the hours, those with a price but no on-demand price; they are in paidUSD alone"`
}

// SavingsReport is what spot capacity saved, line by line and in total.
type SavingsReport struct {
	By    SavingsBy `json:"by"`
	From  time.Time `json:"from,omitzero"`
	To    time.Time `json:"to" doc:"What still runs is counted until here"`
	Lines []Savings `json:"lines" nullable:"false"`
	Total Savings   `json:"total"`
}

// microUSD is a sum of money in millionths of a dollar. Each item is rounded to
// one, and only whole ones are added: however the items are grouped, the lines
// add up to the total exactly.
type microUSD int64

func micro(usd float64) microUSD    { return microUSD(math.Round(usd * 1e6)) }
func (m microUSD) dollars() float64 { return float64(m) / 1e6 }
func (m *microUSD) add(usd float64) { *m += micro(usd) }
func percentSaved(a, b microUSD) float64 {
	if b == 0 {
		return 0
	}
	return 100 * (1 - float64(a)/float64(b))
}

// ledger adds up items under one key.
type ledger struct {
	runs                          map[string]bool
	time, unpriced, uncompared    time.Duration
	paid, compared, demand, bound microUSD
	interruptions                 int
	lostMicroseconds              int64
}

func (l *ledger) add(item Spending, from, to time.Time, last bool) {
	if l.runs == nil {
		l.runs = map[string]bool{}
	}
	l.runs[item.RunKey] = true
	duration := to.Sub(from)
	l.time += duration
	lost := 0.0
	if last { // the work was lost at the segment's end
		l.interruptions += item.Interruptions
		l.lostMicroseconds += int64(math.Round(item.WorkLostSeconds * 1e6))
		lost = min(item.WorkLostSeconds/3600, duration.Hours())
	}
	price, onDemand := item.Segment.USDPerHour, item.Segment.OnDemandUSDPerHour
	if onDemand == 0 && item.Segment.CapacityType == "on-demand" {
		onDemand = price
	}
	if price == 0 {
		l.unpriced += duration
		return
	}
	l.paid.add(duration.Hours() * price)
	if onDemand == 0 {
		l.uncompared += duration
		return
	}
	l.compared.add(duration.Hours() * price)
	l.demand.add((duration.Hours() - lost) * onDemand)
	l.bound.add((duration.Hours() - lost) * price)
}

func (l *ledger) savings(key string) Savings {
	return Savings{
		Key: key, Runs: len(l.runs), Hours: l.time.Hours(), UnpricedHours: l.unpriced.Hours(), UncomparedHours: l.uncompared.Hours(),
		PaidUSD: l.paid.dollars(), ComparedUSD: l.compared.dollars(), OnDemandUSD: l.demand.dollars(), BoundUSD: l.bound.dollars(),
		SavedPercent: percentSaved(l.compared, l.demand), BoundPercent: percentSaved(l.bound, l.demand),
		Interruptions: l.interruptions, WorkLostSeconds: float64(l.lostMicroseconds) / 1e6,
	}
}

// Save reports on the spendings that fall into the query's time. A segment that
// crosses the turn of a month (UTC) is split there, whatever the breakdown, so that
// every breakdown adds the same items.
func Save(items []Spending, query SavingsQuery, now time.Time) SavingsReport {
	end := query.To
	if end.IsZero() || end.After(now) {
		end = now
	}
	lines, total := map[string]*ledger{}, &ledger{}
	for _, item := range items {
		start, stop := item.Segment.StartedAt, item.Segment.StartedAt.Add(item.Segment.Duration(now))
		finished := stop
		if start.Before(query.From) {
			start = query.From
		}
		if stop.After(end) {
			stop = end
		}
		for start.Before(stop) {
			next := monthAfter(start)
			if next.After(stop) {
				next = stop
			}
			key := item.key(query.By, start)
			if lines[key] == nil {
				lines[key] = &ledger{}
			}
			last := next.Equal(finished)
			lines[key].add(item, start, next, last)
			total.add(item, start, next, last)
			start = next
		}
	}
	report := SavingsReport{By: query.By, From: query.From, To: end, Lines: make([]Savings, 0, len(lines)), Total: total.savings("")}
	for _, key := range slices.Sorted(maps.Keys(lines)) {
		report.Lines = append(report.Lines, lines[key].savings(key))
	}
	if query.By != ByMonth {
		slices.SortStableFunc(report.Lines, func(a, b Savings) int { return cmp.Compare(b.PaidUSD, a.PaidUSD) })
	}
	return report
}

// InCents is the report with what was paid and what on demand costs in whole cents that
// add up as they are printed: the total is rounded, and the lines are rounded so that
// their sum is the total's (by largest remainder), each to one of its two cents.
func (r SavingsReport) InCents() SavingsReport {
	r.Lines = slices.Clone(r.Lines)
	for _, amount := range []func(*Savings) *float64{
		func(s *Savings) *float64 { return &s.PaidUSD },
		func(s *Savings) *float64 { return &s.OnDemandUSD },
	} {
		total := int64(math.Round(100 * *amount(&r.Total)))
		*amount(&r.Total) = float64(total) / 100
		order := make([]int, len(r.Lines))
		remainder := make([]microUSD, len(r.Lines))
		for i := range r.Lines {
			const cent = 10_000
			exact := micro(*amount(&r.Lines[i]))
			order[i], remainder[i] = i, exact%cent
			total -= int64(exact / cent)
			*amount(&r.Lines[i]) = float64(exact/cent) / 100
		}
		slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(remainder[b], remainder[a]) })
		for _, i := range order[:min(max(total, 0), int64(len(order)))] {
			*amount(&r.Lines[i]) = math.Round(100**amount(&r.Lines[i])+1) / 100
		}
	}
	return r
}

func (s Spending) key(by SavingsBy, at time.Time) string {
	switch by {
	case ByModel:
		return s.Model
	case ByNamespace:
		return s.Namespace
	case ByMonth:
		return at.UTC().Format("2006-01")
	case ByRun:
		return s.RunKey
	default:
		parts := []string{s.Segment.Region, s.Segment.Zone, s.Segment.InstanceType, s.Segment.CapacityType}
		for i, p := range parts {
			if p == "" {
				parts[i] = "?"
			}
		}
		return strings.Join(parts, "/")
	}
}

func monthAfter(t time.Time) time.Time {
	year, month, _ := t.UTC().Date()
	return time.Date(year, month+1, 1, 0, 0, 0, 0, time.UTC)
}
