// SPDX-License-Identifier: Apache-2.0

package interruption_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/spotbench/spotbench/pkg/interruption"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

const asked = "question"

// sighting is a notice known by key, with its deadline in minutes after noon.
func sighting(key string, kind interruption.Kind, minutes int) interruption.Sighting {
	return interruption.Sighting{Key: key, Notice: interruption.Notice{ID: key, Kind: kind, Deadline: noon.Add(time.Duration(minutes) * time.Minute)}}
}

func begun(s interruption.Sighting) interruption.Sighting {
	s.Begun, s.Notice.Deadline = true, time.Time{}
	return s
}

func TestLedger(t *testing.T) {
	spot := sighting("terminate", interruption.KindSpot, 2)
	reboot := sighting("reboot", interruption.KindMaintenance, 600)
	type step struct {
		at     int // seconds after noon
		answer interruption.Answer
		failed bool
		want   string // the changes: +ID given, -ID withdrawn
	}
	says := func(s ...interruption.Sighting) interruption.Answer { return interruption.Answer{Sightings: s} }
	tests := map[string][]step{
		"a repeated notice is given once": {
			{at: 0, answer: says(spot), want: "+terminate"}, {at: 1, answer: says(spot)}, {at: 3600, answer: says(spot)}},
		"a notice that one answer has twice is given once": {
			{at: 0, answer: says(spot, spot), want: "+terminate"}},
		"two 404s in a row withdraw a notice, one does not": {
			{at: 0, answer: says(spot), want: "+terminate"}, {at: 1, answer: says()}, {at: 2, answer: says(spot)},
			{at: 3, answer: says()}, {at: 4, answer: says(), want: "-terminate"}, {at: 5, answer: says(spot), want: "+terminate"}},
		"errors in between withdraw nothing": {
			{at: 0, answer: says(spot), want: "+terminate"}, {at: 1, answer: says()}, {at: 2, failed: true}, {at: 3, answer: says(spot)}},
		"one explicit answer withdraws": {
			{at: 0, answer: says(spot), want: "+terminate"}, {at: 1, answer: interruption.Answer{Explicit: true}, want: "-terminate"}},
		"an answer that was understood in part withdraws nothing, but may give": {
			{at: 0, answer: says(reboot), want: "+reboot"},
			{at: 1, answer: interruption.Answer{Explicit: true, Partial: true, Sightings: []interruption.Sighting{spot}}, want: "+terminate"},
			{at: 2, answer: interruption.Answer{Partial: true}}, {at: 3, answer: interruption.Answer{Partial: true}}},
		"a reclaim's deadline that moves is the same notice, even if it stays there": {
			{at: 0, answer: says(spot), want: "+terminate"},
			{at: 600, answer: says(sighting("terminate", interruption.KindSpot, 12))},
			{at: 610, answer: says(sighting("terminate", interruption.KindSpot, 12))}},
		"maintenance that is put forward is given anew once its time has settled": {
			{at: 0, answer: says(reboot), want: "+reboot"},
			{at: 1, answer: says(sighting("reboot", interruption.KindMaintenance, 60))},
			{at: 5, answer: says(sighting("reboot", interruption.KindMaintenance, 60))}, // 4 s < 5 s
			{at: 6, answer: says(sighting("reboot", interruption.KindMaintenance, 60)), want: "-reboot +reboot-2"},
			{at: 7, answer: says(sighting("reboot", interruption.KindMaintenance, 60))}},
		"maintenance whose time moves with each answer is the same notice": {
			{at: 0, answer: says(reboot), want: "+reboot"},
			{at: 60, answer: says(sighting("reboot", interruption.KindMaintenance, 601))},
			{at: 120, answer: says(sighting("reboot", interruption.KindMaintenance, 602))},
			{at: 180, answer: says(sighting("reboot", interruption.KindMaintenance, 603))}},
		"maintenance that begins hours early is given anew at once": {
			{at: 0, answer: says(reboot), want: "+reboot"}, {at: 1, answer: says(begun(reboot)), want: "-reboot +reboot-2"}, {at: 2, answer: says(begun(reboot))}},
		"a notice that begins when it was to begin is the same notice": {
			{at: 0, answer: says(spot), want: "+terminate"}, {at: 110, answer: says(begun(spot))}}, // 10 s early
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			ledger := interruption.NewLedger(asked)
			for _, s := range steps {
				got := ""
				if s.failed {
					ledger.Failed(asked)
				} else {
					s.answer.Question = asked
					ledger.Answered(noon.Add(time.Duration(s.at)*time.Second), s.answer, func(e interruption.Event) { got += change(e) })
				}
				if want := s.want; got != want && got != want+" " {
					t.Fatalf("at %d s: changes %q, want %q", s.at, got, want)
				}
			}
		})
	}
}

func change(e interruption.Event) string {
	if e.Withdrawn {
		return "-" + e.ID + " "
	}
	return "+" + e.ID + " "
}

func TestTheLedgerIsQuietOnceEveryQuestionWasAnsweredTwiceWithoutANotice(t *testing.T) {
	l := interruption.NewLedger("a", "b")
	none := func(question string) {
		l.Answered(noon, interruption.Answer{Question: question, Explicit: true}, func(interruption.Event) {})
	}
	pause := sighting("freeze", interruption.KindPause, 1)
	none("a")
	none("a")
	none("b")
	if l.Quiet() {
		t.Error("quiet though b was answered once")
	}
	l.Answered(noon, interruption.Answer{Question: "b", Sightings: []interruption.Sighting{pause}}, func(interruption.Event) {})
	if !l.Quiet() {
		t.Error("not quiet because of a pause, which the machine survives")
	}
	l.Failed("a")
	if l.Quiet() {
		t.Error("quiet though a has just failed")
	}
}

// Whatever is answered, each change follows from the one before: what is given is not
// in force, what is withdrawn is, and when the cloud says that there is nothing, all
// that is in force is withdrawn.
func TestTheLedgersChangesAddUp(t *testing.T) {
	kinds := []interruption.Kind{interruption.KindSpot, interruption.KindMaintenance, interruption.KindPause}
	rapid.Check(t, func(t *rapid.T) {
		l, now, inForce := interruption.NewLedger("a", "b"), noon, map[string]bool{}
		for range rapid.IntRange(1, 60).Draw(t, "answers") {
			now = now.Add(time.Duration(rapid.IntRange(0, 10).Draw(t, "pause")) * time.Second)
			answer := interruption.Answer{Question: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "question"),
				Explicit: rapid.Bool().Draw(t, "explicit"), Partial: rapid.Bool().Draw(t, "partial")}
			for range rapid.IntRange(0, 3).Draw(t, "sightings") {
				i := rapid.IntRange(0, 2).Draw(t, "key")
				s := sighting(fmt.Sprint(answer.Question, i), kinds[i], rapid.IntRange(0, 5).Draw(t, "deadline"))
				s.Begun = rapid.Bool().Draw(t, "begun")
				answer.Sightings = append(answer.Sightings, s)
			}
			l.Answered(now, answer, func(e interruption.Event) {
				if inForce[e.ID] != e.Withdrawn {
					t.Fatalf("%+v, though in force is %t", e, inForce[e.ID])
				}
				inForce[e.ID] = !e.Withdrawn
				if !e.Withdrawn && !e.SeenAt.Equal(now) {
					t.Fatalf("%+v was seen at %s", e, now)
				}
			})
		}
		for _, question := range []string{"a", "b"} {
			l.Answered(now, interruption.Answer{Question: question, Explicit: true}, func(e interruption.Event) {
				if !e.Withdrawn || !inForce[e.ID] {
					t.Fatalf("%+v, though in force is %t", e, inForce[e.ID])
				}
				delete(inForce, e.ID)
			})
		}
		for id, yes := range inForce {
			if yes {
				t.Fatalf("%s is over, but was never withdrawn", id)
			}
		}
	})
}

func TestADeadlineIsKeptByThisMachinesClock(t *testing.T) {
	// The cloud's clock is ten minutes ahead, give or take what a Date leaves open.
	const ahead = 10 * time.Minute
	reboot := sighting("reboot", interruption.KindMaintenance, 600)
	ledger := interruption.NewLedger(asked)
	var events []interruption.Event
	answer := func(at time.Duration, ahead time.Duration, s ...interruption.Sighting) {
		ledger.Answered(noon.Add(at), interruption.Answer{Question: asked, Sightings: s, Explicit: true, ClockAhead: ahead}, func(e interruption.Event) { events = append(events, e) })
	}
	answer(0, ahead, reboot)
	answer(10*time.Second, ahead+time.Second, reboot)
	answer(20*time.Second, 0, reboot) // the clock was set right meanwhile: a deadline is not moved by that
	answer(30*time.Second, 0, begun(reboot))
	answer(40*time.Second, 0)
	var got []string
	for _, e := range events {
		at := "-"
		if !e.Deadline.IsZero() {
			at = e.Deadline.Sub(noon).String()
		}
		got = append(got, fmt.Sprint(at, " ", e.Withdrawn))
	}
	want := []string{"9h50m0s false", "9h50m0s true", "- false", "- true"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("deadlines after noon, and withdrawals: %v, want %v", got, want)
	}
}
