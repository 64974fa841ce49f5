// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/postgres"
)

// measure tells of a run that succeeded with one point of so many requests.
func measure(t *testing.T, s *postgres.Store, key string, completed int64) {
	t.Helper()
	put(t, s, key, catalog.Run{Model: "org/m", Status: catalog.Succeeded, Engine: "vllm", EngineVersion: "0.11.0"})
	if _, _, err := s.Import(t.Context(), key, "c4.json", "vllm", []byte(key), []catalog.Result{{Requests: completed, Completed: completed}}); err != nil {
		t.Fatal(err)
	}
}

func keysBy(t *testing.T, s *postgres.Store, verdict catalog.Verdict) []string {
	t.Helper()
	page, err := s.ListRuns(t.Context(), catalog.RunQuery{Verdict: verdict, OldestFirst: true})
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, r := range page.Items {
		if r.Validity.Verdict != verdict {
			t.Errorf("%s is listed as %s and is %s", r.Key, verdict, r.Validity.Verdict)
		}
		keys = append(keys, r.Key)
	}
	slices.Sort(keys)
	return keys
}

func TestAFilterByVerdictFollowsEveryChangeOfTheRun(t *testing.T) {
	s := newStore(t)
	put(t, s, "ns/a", catalog.Run{Status: catalog.Running})
	expect := func(after string, want catalog.Verdict) {
		t.Helper()
		for _, v := range []catalog.Verdict{catalog.Valid, catalog.Suspect, catalog.Invalid, catalog.Pending} {
			if got := keysBy(t, s, v); slices.Contains(got, "ns/a") != (v == want) {
				t.Errorf("after %s: %s has %v, want the run in %s", after, v, got, want)
			}
		}
	}
	expect("the start", catalog.Pending)
	put(t, s, "ns/a", catalog.Run{Status: catalog.Succeeded})
	expect("success without a result", catalog.Invalid)
	measure(t, s, "ns/a", 200)
	expect("a result", catalog.Valid)
	if _, err := s.PutTelemetry(t.Context(), "ns/a", "p", catalog.Telemetry{GPUs: []catalog.GPUTelemetry{{UUID: "G", Driver: "570.133.20", XIDs: []catalog.XIDCount{{Code: 31, Count: 1}}}}}); err != nil {
		t.Fatal(err)
	}
	expect("an XID in the telemetry", catalog.Suspect)
	if page, err := s.ListRuns(t.Context(), catalog.RunQuery{DriverVersion: "570.133.20"}); err != nil || len(page.Items) != 1 {
		t.Errorf("runs with the telemetry's driver: %d, %v, want 1", len(page.Items), err)
	}
	if page, err := s.ListResults(t.Context(), catalog.ResultQuery{Verdict: catalog.Suspect}); err != nil || len(page.Items) != 1 {
		t.Errorf("results of suspect runs: %d, %v, want 1", len(page.Items), err)
	}
	if page, err := s.ListResults(t.Context(), catalog.ResultQuery{Verdict: catalog.Valid}); err != nil || len(page.Items) != 0 {
		t.Errorf("results of valid runs: %d, %v, want none", len(page.Items), err)
	}
}

// TestAFilledDatabaseOfOlderRulesIsJudgedAnew takes the verdicts' columns away from
// a database with runs, as one from before them has it, and brings them back.
func TestAFilledDatabaseOfOlderRulesIsJudgedAnew(t *testing.T) {
	s := newStore(t)
	for n := range 5 {
		measure(t, s, fmt.Sprintf("ns/valid-%d", n), 200)
		measure(t, s, fmt.Sprintf("ns/few-%d", n), 50)
	}
	downAndUp(t, s, 2)
	if judged, err := s.Rejudge(t.Context()); err != nil || judged != 10 {
		t.Errorf("%d runs were judged, %v; want 10", judged, err)
	}
	if valid, suspect := keysBy(t, s, catalog.Valid), keysBy(t, s, catalog.Suspect); len(valid) != 5 || len(suspect) != 5 {
		t.Errorf("valid %v, suspect %v; want five each", valid, suspect)
	}
	if page, err := s.ListResults(t.Context(), catalog.ResultQuery{Verdict: catalog.Suspect}); err != nil || len(page.Items) != 5 {
		t.Errorf("%d results of suspect runs, %v; want five", len(page.Items), err)
	}
	if judged, err := s.Rejudge(t.Context()); err != nil || judged != 0 {
		t.Errorf("again %d runs were judged, %v; want none", judged, err)
	}
}

// downAndUp takes the schema of a database back to a version, and brings it up again.
func downAndUp(t *testing.T, s *postgres.Store, version int64) {
	t.Helper()
	for {
		steps, err := s.MigrateStatus(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(steps, func(m postgres.Migration) bool { return m.Applied && m.Version > version }) {
			break
		}
		if err := s.MigrateDown(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.MigrateUp(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestMeasuredRunsAreThoseNamedInTheirOrderOrAllThatMatch(t *testing.T) {
	s := newStore(t)
	for _, key := range []string{"ns/a", "ns/b", "ns/c"} {
		measure(t, s, key, 200)
	}
	put(t, s, "ns/empty", catalog.Run{Model: "org/m"})
	runs, more, err := s.Measured(t.Context(), []string{"ns/c", "ns/a", "ns/c"}, catalog.RunQuery{})
	if err != nil || more || len(runs) != 2 || runs[0].Key != "ns/c" || runs[1].Key != "ns/a" || len(runs[0].Results) != 1 || runs[0].EngineVersion != "0.11.0" {
		t.Errorf("%+v, %v, %v; want c, then a, with their results", runs, more, err)
	}
	if runs, _, err := s.Measured(t.Context(), nil, catalog.RunQuery{EngineVersion: "0.11.0"}); err != nil || len(runs) != 3 {
		t.Errorf("%d runs, %v; want the three with results", len(runs), err)
	}
	if _, _, err := s.Measured(t.Context(), []string{"ns/gone"}, catalog.RunQuery{}); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("a run that is not there: %v", err)
	}
}
