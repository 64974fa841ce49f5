// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/localpg"
	"github.com/spotbench/spotbench/pkg/catalog/postgres"
)

// server is a PostgreSQL of the tests' own; each test has a database in it.
var server *localpg.Server

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "catalog-test-")
	if err != nil {
		panic(err)
	}
	if server, err = localpg.Start(context.Background(), dir, slog.New(slog.DiscardHandler)); err != nil {
		panic(err)
	}
	code := m.Run()
	if err := errors.Join(server.Stop(context.Background()), os.RemoveAll(dir)); err != nil {
		panic(err)
	}
	os.Exit(code)
}

func emptyDatabase(t *testing.T) *postgres.Store {
	t.Helper()
	store, _ := newDatabase(t, 0)
	return store
}

// newDatabase is an empty one and its address; timeout is what a statement may take.
func newDatabase(t *testing.T, timeout time.Duration) (store *postgres.Store, url string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	name := fmt.Sprintf("t%d", time.Now().UnixNano())
	if _, err := conn.Exec(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	url = strings.Replace(server.URL(), "/catalog?", "/"+name+"?", 1)
	store, err = postgres.Open(t.Context(), postgres.Options{URL: url, StatementTimeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	return store, url
}

func newStore(t *testing.T) *postgres.Store {
	t.Helper()
	store := emptyDatabase(t)
	if _, err := store.MigrateUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	return store
}

func ptr[T any](v T) *T { return &v }

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func put(t *testing.T, s *postgres.Store, key string, run catalog.Run) {
	t.Helper()
	if _, _, err := s.PutRun(t.Context(), key, run, 0); err != nil {
		t.Fatal(err)
	}
}

func TestMigrationsGoUpAndDownAndUpAgain(t *testing.T) {
	s := emptyDatabase(t)
	if err := s.Ping(t.Context()); err == nil {
		t.Error("a database without tables passes for ready")
	}
	up := func() int {
		n, err := s.MigrateUp(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	steps := up()
	if steps == 0 || up() != 0 {
		t.Errorf("%d steps, then not none", steps)
	}
	for range steps {
		if err := s.MigrateDown(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "catalog-api migrate up") {
			t.Errorf("with an older schema the database passes for ready: %v", err)
		}
	}
	status, err := s.MigrateStatus(t.Context())
	if err != nil || len(status) != steps || status[0].Applied {
		t.Errorf("status after all steps down: %+v, %v", status, err)
	}
	if up() != steps {
		t.Error("not every step came back")
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestTwoReplicasMigrateOneDatabaseAtOnce(t *testing.T) {
	s := emptyDatabase(t)
	var wg sync.WaitGroup
	errs := make([]error, 3)
	for n := range errs {
		wg.Go(func() { _, errs[n] = s.MigrateUp(context.Background()) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
}

// TestAStepOfTheSchemaMayTakeLongerThanAStatement has the newest step wait for a table
// for longer than a statement may take.
func TestAStepOfTheSchemaMayTakeLongerThanAStatement(t *testing.T) {
	store, url := newDatabase(t, 100*time.Millisecond)
	if _, err := store.MigrateUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the fourth step changes the table of results
		if err := store.MigrateDown(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	if _, err := conn.Exec(t.Context(), "BEGIN; LOCK TABLE results IN ACCESS SHARE MODE"); err != nil {
		t.Fatal(err)
	}
	released := make(chan error, 1)
	go func() {
		time.Sleep(time.Second)
		_, err := conn.Exec(context.Background(), "COMMIT")
		released <- err
	}()
	if _, err := store.MigrateUp(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-released; err != nil {
		t.Error(err)
	}
}

// TestAKeyIsGoodWhereItsUseCannotBeNoted: a database that cannot be written to, as
// during a failover.
func TestAKeyIsGoodWhereItsUseCannotBeNoted(t *testing.T) {
	store, url := newDatabase(t, 0)
	if _, err := store.MigrateUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	hash := []byte("hash")
	if _, err := store.CreateKey(t.Context(), catalog.APIKey{ID: "k", Role: catalog.Writer, ExpiresAt: time.Now().Add(time.Hour)}, hash); err != nil {
		t.Fatal(err)
	}
	readOnly, err := postgres.Open(t.Context(), postgres.Options{URL: url + "&default_transaction_read_only=on"})
	if err != nil {
		t.Fatal(err)
	}
	defer readOnly.Close()
	if role, _, err := readOnly.CheckKey(t.Context(), "k", hash); err != nil || role != catalog.Writer {
		t.Errorf("role %q, %v", role, err)
	}
	if role, _, err := readOnly.CheckKey(t.Context(), "k", []byte("other")); err != nil || role != "" {
		t.Errorf("another secret: role %q, %v", role, err)
	}
}

// TestAWriteTellsItsPositionWithoutReplicasToo: caches are asked by it.
func TestAWriteTellsItsPositionWithoutReplicasToo(t *testing.T) {
	store, state := newStore(t), &catalog.Session{}
	if _, _, err := store.PutRun(catalog.WithSession(t.Context(), state), "ns/r", catalog.Run{Model: "m"}, 0); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(state.Position(), "/") {
		t.Errorf("position %q", state.Position())
	}
}

func TestEverythingToldAboutARunIsReadBack(t *testing.T) {
	s := newStore(t)
	ctx, key := t.Context(), "gpu-workloads/sweep-1a2b3c4d"
	run := catalog.Run{Namespace: "gpu-workloads", PodName: "sweep-x", PodUID: "u2", Model: "org/m", Benchmark: "chat", Image: "i:1", ImageDigest: "sha256:1",
		Status: catalog.Succeeded, GPUModel: "A100-80GB", GPUCount: 8, Node: "n2", Zone: "z", Region: "r", InstanceType: "p4de.24xlarge", CapacityType: "on-demand",
		USDPerHour: 40, OnDemandUSDPerHour: 40, PlacementReason: "cheapest", StartedAt: start, FinishedAt: start.Add(time.Hour)}
	put(t, s, key, run)
	for uid, g := range map[string]catalog.Segment{
		"u1": {Node: "n1", GPUModel: "A100-80GB", GPUUUIDs: []string{"GPU-1", "GPU-2"}, CapacityType: "spot", USDPerHour: 12, OnDemandUSDPerHour: 40, StartedAt: start, EndedAt: start.Add(30 * time.Minute)},
		"u2": {Node: "n2", GPUModel: "A100-80GB", GPUUUIDs: []string{"GPU-3"}, CapacityType: "on-demand", USDPerHour: 40, StartedAt: start.Add(45 * time.Minute), EndedAt: start.Add(time.Hour), RestoredGeneration: 3},
	} {
		if _, err := s.PutSegment(ctx, key, uid, g); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.PutInterruption(ctx, key, "notice-1", catalog.Interruption{Kind: "spot", Node: "n1", PodUID: "u1", NoticeAt: start.Add(28 * time.Minute), TaintedAt: start.Add(28*time.Minute + time.Second)}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutInterruption(ctx, key, "notice-1", catalog.Interruption{CheckpointedAt: start.Add(29 * time.Minute), CheckpointBytes: 4096, WorkLostSeconds: ptr(1.5), Outcome: "restored"}); err != nil {
		t.Fatal(err)
	}
	telemetry := catalog.Telemetry{From: start, To: start.Add(time.Hour), GPUs: []catalog.GPUTelemetry{{UUID: "GPU-1", Samples: 10, EnergyJoules: 500, PowerWatts: &catalog.Distribution{Mean: 300, P50: 300, P95: 390, Max: 400}}}}
	if _, err := s.PutTelemetry(ctx, key, "u1", telemetry); err != nil {
		t.Fatal(err)
	}
	imported, created, err := s.Import(ctx, key, "chat-c4.json", "vllm", []byte("{}"), []catalog.Result{{Model: "org/m", Requests: 10, Completed: 10, Concurrency: ptr[int64](4), DurationSeconds: 5}})
	if err != nil || !created {
		t.Fatal(created, err)
	}
	got, err := s.GetRun(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	run.Key = key
	if diff := cmp.Diff(run, got.Run); diff != "" {
		t.Errorf("run (-want +got)\n%s", diff)
	}
	// 0.5 h × 12 + 0.25 h × 40 = 16; on demand (0.5 + 0.25) h × 40, less 1.5 s of them, which
	// were lost: 29.983333.
	if got.CostUSD != 16 || got.OnDemandCostUSD != 29.983333 || !got.CostKnown {
		t.Errorf("cost %v of %v, known %v", got.CostUSD, got.OnDemandCostUSD, got.CostKnown)
	}
	if diff := cmp.Diff([]string{"n1", "n2"}, got.Nodes); diff != "" {
		t.Errorf("nodes %s", diff)
	}
	i := got.Interruptions[0]
	if i.Kind != "spot" || i.Outcome != "restored" || *i.WorkLostSeconds != 1.5 || !i.TaintedAt.Equal(start.Add(28*time.Minute+time.Second)) || got.WorkLostSeconds != 1.5 || i.RunKey != key {
		t.Errorf("the two updates of the interruption gave %+v", i)
	}
	telemetry.PodUID = "u1"
	if diff := cmp.Diff([]catalog.Telemetry{telemetry}, got.Telemetry); diff != "" {
		t.Errorf("telemetry %s", diff)
	}
	if len(got.Results) != 1 || got.Results[0].ID != imported.Results[0] || got.Results[0].RunKey != key || got.Results[0].File != "chat-c4.json" {
		t.Errorf("results %+v", got.Results)
	}
	if got.DurationSeconds != 3600 || got.EnergyJoules != 500 {
		t.Errorf("duration %v s, energy %v J", got.DurationSeconds, got.EnergyJoules)
	}
	models, err := s.ListModels(ctx)
	if want := []catalog.Model{{Name: "org/m", Runs: 1, Results: 1, GPUModels: []string{"A100-80GB"}, LastRunAt: start}}; err != nil || !cmp.Equal(want, models) {
		t.Errorf("models %+v, %v", models, err)
	}
}

func TestTheSameFileIsImportedOnceEvenByManyAtOnce(t *testing.T) {
	s := newStore(t)
	put(t, s, "ns/a", catalog.Run{Model: "m"})
	put(t, s, "ns/b", catalog.Run{Model: "m"})
	const writers = 12
	var wg sync.WaitGroup
	ids, created, errs := make([]string, writers), make([]bool, writers), make([]error, writers)
	for n := range writers {
		wg.Go(func() {
			var i catalog.Import
			i, created[n], errs[n] = s.Import(context.Background(), "ns/a", "f.json", "vllm", []byte("same"), []catalog.Result{{Model: "m", Requests: 1, Completed: 1}})
			ids[n] = i.ID + i.Results[0]
		})
	}
	wg.Wait()
	news := 0
	for n := range writers {
		if errs[n] != nil || ids[n] != ids[0] {
			t.Errorf("writer %d: %s, %v", n, ids[n], errs[n])
		}
		if created[n] {
			news++
		}
	}
	if news != 1 {
		t.Errorf("%d writers made the import", news)
	}
	other, isNew, err := s.Import(t.Context(), "ns/b", "f.json", "vllm", []byte("same"), []catalog.Result{{Model: "m"}})
	if err != nil || !isNew || other.ID+other.Results[0] == ids[0] {
		t.Errorf("the same content in another run is no import of its own: %+v %v %v", other, isNew, err)
	}
	page, err := s.ListResults(t.Context(), catalog.ResultQuery{RunKey: "ns/a"})
	if err != nil || len(page.Items) != 1 {
		t.Errorf("%d results, %v", len(page.Items), err)
	}
}

func TestANewerFileOfTheSameNameTakesThePlaceOfTheEarlier(t *testing.T) {
	s := newStore(t)
	put(t, s, "ns/a", catalog.Run{})
	for n, content := range []string{"first", "second", "first"} {
		if _, _, err := s.Import(t.Context(), "ns/a", "c4.json", "vllm", []byte(content), []catalog.Result{{Model: content, Completed: int64(n)}}); err != nil {
			t.Fatal(err)
		}
	}
	page, err := s.ListResults(t.Context(), catalog.ResultQuery{RunKey: "ns/a"})
	if err != nil || len(page.Items) != 1 || page.Items[0].Model != "second" {
		t.Errorf("%+v, %v; the second content only is wanted, the first came back late", page.Items, err)
	}
}

func TestNothingIsStoredForARunThatIsNotThere(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	_, segment := s.PutSegment(ctx, "ns/none", "u", catalog.Segment{})
	_, interruption := s.PutInterruption(ctx, "ns/none", "n", catalog.Interruption{})
	_, telemetry := s.PutTelemetry(ctx, "ns/none", "u", catalog.Telemetry{})
	_, _, file := s.Import(ctx, "ns/none", "f", "vllm", nil, nil)
	_, read := s.GetRun(ctx, "ns/none")
	for what, err := range map[string]error{"segment": segment, "interruption": interruption, "telemetry": telemetry, "import": file, "read": read} {
		if !errors.Is(err, catalog.ErrNotFound) {
			t.Errorf("%s: error %v", what, err)
		}
	}
}

func TestValuesThatCannotBeStoredAreRefusedAsInvalid(t *testing.T) {
	s := newStore(t)
	put(t, s, "ns/a", catalog.Run{StartedAt: start})
	_, _, nul := s.PutRun(t.Context(), "ns/a", catalog.Run{Model: "a\x00b"}, 0)
	_, _, order := s.PutRun(t.Context(), "ns/a", catalog.Run{Status: catalog.Failed, FinishedAt: start.Add(-time.Hour)}, 0)
	_, token := s.ListRuns(t.Context(), catalog.RunQuery{PageToken: "nonsense"})
	_, ids := s.ListResults(t.Context(), catalog.ResultQuery{PageToken: "eyJ0IjoiMjAyNi0wMS0wMVQwMDowMDowMFoiLCJrIjpbIngiXX0"})
	for what, err := range map[string]error{"NUL": nul, "end before start": order, "page token": token, "page token of another list": ids} {
		if !errors.Is(err, catalog.ErrInvalid) {
			t.Errorf("%s: error %v", what, err)
		}
	}
}

func TestAWriterWhoSawAnOlderRevisionIsToldSo(t *testing.T) {
	s := newStore(t)
	put(t, s, "ns/a", catalog.Run{Model: "m"})
	_, seen, err := s.GetRunRevision(t.Context(), "ns/a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutSegment(t.Context(), "ns/a", "u", catalog.Segment{Node: "n"}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.PutRun(t.Context(), "ns/a", catalog.Run{Model: "x"}, seen); !errors.Is(err, catalog.ErrChanged) {
		t.Errorf("error %v", err)
	}
	_, now, err := s.PutRun(t.Context(), "ns/a", catalog.Run{Model: "y"}, seen+1)
	if err != nil || now != seen+2 {
		t.Errorf("revision %d after %d, %v", now, seen, err)
	}
}

func TestPagesTogetherHaveEveryRunOnce(t *testing.T) {
	s := newStore(t)
	const runs = 7
	for n := range runs {
		// Two runs start at each moment, so that the key has to decide.
		put(t, s, fmt.Sprintf("ns/r%d", n), catalog.Run{StartedAt: start.Add(time.Duration(n/2) * time.Hour)})
		if _, err := s.PutInterruption(t.Context(), fmt.Sprintf("ns/r%d", n), "same-notice", catalog.Interruption{NoticeAt: start}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for query := (catalog.RunQuery{Limit: 2}); ; {
		page, err := s.ListRuns(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page.Items {
			got = append(got, r.Key)
		}
		if query.PageToken = page.NextPageToken; query.PageToken == "" {
			break
		}
	}
	if diff := cmp.Diff([]string{"ns/r6", "ns/r5", "ns/r4", "ns/r3", "ns/r2", "ns/r1", "ns/r0"}, got); diff != "" {
		t.Errorf("newest first (-want +got)\n%s", diff)
	}
	count := 0
	for query := (catalog.InterruptionQuery{Limit: 3}); ; {
		page, err := s.ListInterruptions(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		count += len(page.Items)
		if query.PageToken = page.NextPageToken; query.PageToken == "" {
			break
		}
	}
	if count != runs {
		t.Errorf("%d interruptions of %d", count, runs)
	}
}

func TestUpdatesOfOneRunAtOnceLoseNothing(t *testing.T) {
	s := newStore(t)
	updates := []catalog.Run{{Model: "m"}, {Benchmark: "b"}, {Node: "n"}, {GPUModel: "g"}, {GPUCount: 4}, {Zone: "z"}, {StartedAt: start}, {USDPerHour: 2}}
	var wg sync.WaitGroup
	errs := make([]error, len(updates))
	for n, u := range updates {
		wg.Go(func() { _, _, errs[n] = s.PutRun(context.Background(), "ns/a", u, 0) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	got, err := s.GetRun(t.Context(), "ns/a")
	want := catalog.Run{Key: "ns/a", Model: "m", Benchmark: "b", Node: "n", GPUModel: "g", GPUCount: 4, Zone: "z", StartedAt: start, USDPerHour: 2}
	if err != nil || !cmp.Equal(want, got.Run) {
		t.Errorf("%s %v", cmp.Diff(want, got.Run), err)
	}
}
