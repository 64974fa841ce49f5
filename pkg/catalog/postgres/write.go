// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// inRun runs do in a transaction that holds the lock of the run's row, so that
// updates of one run follow each other, counts a new revision of the run, and
// judges it. do changes the run's parts, and queues what changes them in the database.
func (s *Store) inRun(ctx context.Context, key string, do func(run *catalog.Parts, writes *pgx.Batch) error) error {
	if err := catalog.MayWrite(ctx, key); err != nil {
		return err
	}
	err := s.write(ctx, func(c *change) error {
		run, err := lockRun(ctx, c, key)
		if err != nil {
			return err
		}
		if err := do(&run.Parts, &c.end); err != nil {
			return err
		}
		queueChanged(&c.end, run.Parts, catalog.Judge(run.Parts))
		return nil
	})
	return explain(err)
}

// lockRun gives the run with everything about it, and holds the lock of its row until
// the transaction ends.
func lockRun(ctx context.Context, c *change, key string) (revisedRun, error) {
	var b pgx.Batch
	asked := queueRun(&b, key, " FOR NO KEY UPDATE")
	if err := c.send(ctx, &b); err != nil {
		return revisedRun{}, err
	}
	run, err := asked.run(key)
	if err != nil {
		return run, fmt.Errorf("%w; create it first (PUT /v1/runs/{key})", err)
	}
	return run, nil
}

// PutRun creates the run or merges the update into it, and gives what it is then
// with its revision. ifRevision, if not 0, is the revision the writer saw, or
// catalog.NotYet or catalog.AnyRevision.
func (s *Store) PutRun(ctx context.Context, key string, update catalog.Run, ifRevision int64) (merged catalog.Run, revision int64, err error) {
	if err := catalog.MayWriteRun(ctx, key, update); err != nil {
		return catalog.Run{}, 0, err
	}
	for {
		merged, revision, err = s.putRun(ctx, key, update, ifRevision)
		// A run that was made since we looked is there when we look again; nobody removes
		// runs, so that this ends.
		if !errors.Is(err, errMade) {
			return merged, revision, explain(err)
		}
	}
}

// errMade is that another writer made the run at the same time.
var errMade = errors.New("the run is there already")

func (s *Store) putRun(ctx context.Context, key string, update catalog.Run, ifRevision int64) (merged catalog.Run, revision int64, err error) {
	made := false
	err = s.write(ctx, func(c *change) error {
		run, err := lockRun(ctx, c, key)
		made = errors.Is(err, catalog.ErrNotFound) && (ifRevision == 0 || ifRevision == catalog.NotYet)
		switch {
		case made:
		case err != nil:
			return err
		case ifRevision == catalog.NotYet:
			return fmt.Errorf("run %q: %w: it is there already; leave out If-None-Match to update it", key, catalog.ErrChanged)
		case ifRevision > 0 && ifRevision != run.revision:
			return fmt.Errorf("run %q: %w (revision %d, not %d); read it again", key, catalog.ErrChanged, run.revision, ifRevision)
		}
		merged, revision = run.Run.Merge(update), run.revision+1
		merged.Key = key
		if err := merged.Validate(); err != nil {
			return fmt.Errorf("%w: with what is known of the run already: %w", catalog.ErrInvalid, err)
		}
		run.Run = merged
		verdict := catalog.Judge(run.Parts)
		statement := updateRun
		if made {
			statement = insertRun
		}
		// The verdict is written with the rest: each version of a row has an entry in
		// each of the table's many indexes.
		c.end.Queue(statement, key, revision, merged.Namespace, merged.PodName, merged.PodUID, merged.Model, merged.Benchmark,
			merged.Image, merged.ImageDigest, merged.Status, merged.GPUModel, merged.GPUCount, merged.Node, merged.Zone, merged.Region,
			merged.InstanceType, merged.CapacityType, merged.USDPerHour, merged.OnDemandUSDPerHour, merged.PlacementReason,
			stamp(merged.StartedAt), stamp(merged.FinishedAt), merged.Engine, merged.EngineVersion, merged.DriverVersion, merged.PriceSource,
			verdict.Verdict, verdict.Rules)
		queueResultsVerdict(&c.end, run.Parts, verdict)
		return nil
	})
	var pg *pgconn.PgError
	if made && errors.As(err, &pg) && pg.Code == "23505" && pg.ConstraintName == "runs_pkey" {
		err = errMade
	}
	return merged, revision, err
}

const (
	runColumns = `key, revision, namespace, pod_name, pod_uid, model, benchmark, image, image_digest, status, gpu_model, gpu_count, node, zone, region,
		instance_type, capacity_type, usd_per_hour, on_demand_usd_per_hour, placement_reason, started_at, finished_at, engine, engine_version, driver_version, price_source, verdict, verdict_rules`
	runValues = `$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21::timestamptz, $22, $23, $24, $25, $26, $27, $28`
	insertRun = `INSERT INTO runs (` + runColumns + `, listed_at) VALUES (` + runValues + `, coalesce($21::timestamptz, now()))`
	updateRun = `UPDATE runs SET (` + runColumns + `, listed_at, updated_at) = ROW(` + runValues + `, coalesce($21::timestamptz, listed_at), now()) WHERE key = $1`
)

// PutSegment creates one pod's stretch of a run or merges the update into it.
func (s *Store) PutSegment(ctx context.Context, key, podUID string, update catalog.Segment) (catalog.Segment, error) {
	var merged catalog.Segment
	err := s.inRun(ctx, key, func(run *catalog.Parts, writes *pgx.Batch) error {
		known := partOf(&run.Segments, func(g catalog.Segment) bool { return g.PodUID == podUID })
		merged = known.Merge(update)
		merged.PodUID = podUID
		if err := merged.Validate(); err != nil {
			return fmt.Errorf("%w: with what is known of the segment already: %w", catalog.ErrInvalid, err)
		}
		*known = merged
		uuids := merged.GPUUUIDs
		if uuids == nil {
			uuids = []string{}
		}
		writes.Queue(`INSERT INTO segments (run_key, pod_uid, node, gpu_model, gpu_uuids, capacity_type, usd_per_hour, on_demand_usd_per_hour, started_at, ended_at, restored_generation,
			region, zone, instance_type)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
			ON CONFLICT (run_key, pod_uid) DO UPDATE SET node = excluded.node, gpu_model = excluded.gpu_model, gpu_uuids = excluded.gpu_uuids,
			capacity_type = excluded.capacity_type, usd_per_hour = excluded.usd_per_hour, on_demand_usd_per_hour = excluded.on_demand_usd_per_hour,
			started_at = excluded.started_at, ended_at = excluded.ended_at, restored_generation = excluded.restored_generation,
			region = excluded.region, zone = excluded.zone, instance_type = excluded.instance_type`,
			key, podUID, merged.Node, merged.GPUModel, uuids, merged.CapacityType, merged.USDPerHour, merged.OnDemandUSDPerHour,
			stamp(merged.StartedAt), stamp(merged.EndedAt), merged.RestoredGeneration, merged.Region, merged.Zone, merged.InstanceType)
		return nil
	})
	return merged, err
}

// PutInterruption creates an interruption of a run or merges the update into it.
func (s *Store) PutInterruption(ctx context.Context, key, noticeID string, update catalog.Interruption) (catalog.Interruption, error) {
	var merged catalog.Interruption
	err := s.inRun(ctx, key, func(run *catalog.Parts, writes *pgx.Batch) error {
		known := partOf(&run.Interruptions, func(i catalog.Interruption) bool { return i.NoticeID == noticeID })
		merged = known.Merge(update)
		merged.RunKey, merged.NoticeID = key, noticeID
		if err := merged.Validate(); err != nil {
			return fmt.Errorf("%w: %w", catalog.ErrInvalid, err)
		}
		*known = merged
		writes.Queue(`INSERT INTO interruptions (run_key, notice_id, kind, node, pod_uid, notice_at, tainted_at, checkpointed_at, evicted_at,
			restored_at, running_again_at, checkpoint_generation, checkpoint_bytes, work_lost_seconds, outcome, listed_at)
			VALUES ($1, $2, $3, $4, $5, $6::timestamptz, $7, $8, $9, $10, $11, $12, $13, $14, $15, coalesce($6::timestamptz, now()))
			ON CONFLICT (run_key, notice_id) DO UPDATE SET kind = excluded.kind, node = excluded.node, pod_uid = excluded.pod_uid, notice_at = excluded.notice_at,
			tainted_at = excluded.tainted_at, checkpointed_at = excluded.checkpointed_at, evicted_at = excluded.evicted_at, restored_at = excluded.restored_at,
			running_again_at = excluded.running_again_at, checkpoint_generation = excluded.checkpoint_generation, checkpoint_bytes = excluded.checkpoint_bytes,
			work_lost_seconds = excluded.work_lost_seconds, outcome = excluded.outcome,
			listed_at = coalesce(excluded.notice_at, interruptions.listed_at)`,
			key, noticeID, merged.Kind, merged.Node, merged.PodUID, stamp(merged.NoticeAt), stamp(merged.TaintedAt), stamp(merged.CheckpointedAt), stamp(merged.EvictedAt),
			stamp(merged.RestoredAt), stamp(merged.RunningAgainAt), merged.CheckpointGeneration, merged.CheckpointBytes, merged.WorkLostSeconds, merged.Outcome)
		return nil
	})
	return merged, err
}

// partOf is the one of the parts that is meant, a new one if there is none.
func partOf[T any](parts *[]T, is func(T) bool) *T {
	n := slices.IndexFunc(*parts, is)
	if n < 0 {
		n = len(*parts)
		*parts = append(*parts, *new(T))
	}
	return &(*parts)[n]
}

// PutTelemetry replaces the telemetry of one pod: a summary is whole or nothing.
func (s *Store) PutTelemetry(ctx context.Context, key, podUID string, telemetry catalog.Telemetry) (catalog.Telemetry, error) {
	telemetry.PodUID = podUID
	gpus, series := slices.Clone(telemetry.GPUs), map[string]*catalog.Series{}
	for n, g := range gpus {
		if g.Series != nil {
			series[g.UUID], gpus[n].Series = g.Series, nil
		}
	}
	if gpus == nil {
		gpus = []catalog.GPUTelemetry{}
	}
	body, err := json.Marshal(gpus)
	var course []byte // null leaves what is there
	if err == nil && len(series) > 0 {
		course, err = json.Marshal(series)
	}
	if err != nil {
		return catalog.Telemetry{}, fmt.Errorf("%w: telemetry: %w", catalog.ErrInvalid, err)
	}
	err = s.inRun(ctx, key, func(run *catalog.Parts, writes *pgx.Batch) error {
		*partOf(&run.Telemetry, func(t catalog.Telemetry) bool { return t.PodUID == podUID }) = telemetry
		for _, g := range telemetry.GPUs {
			if g.Driver != "" { // a node has one
				run.Run.DriverVersion = g.Driver
				break
			}
		}
		writes.Queue(`INSERT INTO telemetry (run_key, pod_uid, from_at, to_at, gpus, series) VALUES ($1, $2, $3, $4, $5, $6)
			ON CONFLICT (run_key, pod_uid) DO UPDATE SET from_at = excluded.from_at, to_at = excluded.to_at, gpus = excluded.gpus, series = coalesce(excluded.series, telemetry.series)`,
			key, podUID, stamp(telemetry.From), stamp(telemetry.To), body, course)
		return nil
	})
	return telemetry, err
}

// Import takes in a file's results, all or none. created is false when the run
// has had this content before; the import is then the one of that time. Another
// content under a name the run knows takes the place of the earlier one.
func (s *Store) Import(ctx context.Context, runKey, file, format string, content []byte, results []catalog.Result) (imported catalog.Import, created bool, err error) {
	if err := catalog.MayWrite(ctx, runKey); err != nil {
		return imported, false, err
	}
	imported, results = catalog.NewImport(runKey, file, format, content, results, *stamp(s.now()))
	err = s.write(ctx, func(c *change) error {
		var locked pgx.Batch
		asked := queueRun(&locked, runKey, " FOR NO KEY UPDATE")
		earlier := queue(&locked, scanImport, selectImports+" WHERE i.id = $1", imported.ID)
		if err := c.send(ctx, &locked); err != nil {
			return err
		}
		run, err := asked.run(runKey)
		if err != nil {
			return fmt.Errorf("%w; create it first (PUT /v1/runs/{key})", err)
		}
		for _, e := range *earlier {
			imported, created = e, false
			return nil
		}
		// The file is compressed, and rows are made, while the database takes in others.
		var packed []byte
		var packing sync.WaitGroup
		packing.Go(func() { packed = pack(content) })
		defer packing.Wait() // afterwards the content is the caller's again
		var writes pgx.Batch
		if file != "" {
			run.Results = slices.DeleteFunc(run.Results, func(r catalog.Result) bool { return r.File == file })
			writes.Queue(`WITH replaced AS (UPDATE imports SET superseded = true WHERE run_key = $1 AND file = $2 AND NOT superseded RETURNING id)
				UPDATE results SET superseded = true WHERE import_id IN (SELECT id FROM replaced)`, runKey, file)
		}
		// The verdict is found before the results are written, so that they are written once.
		run.Results = append(run.Results, results...)
		verdict := catalog.Judge(run.Parts)
		queueChanged(&writes, run.Parts, verdict)
		writes.Queue("INSERT INTO imports (id, run_key, file, format, sha256, bytes, imported_at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
			imported.ID, runKey, file, format, imported.SHA256, imported.Bytes, imported.ImportedAt)
		if err := c.send(ctx, &writes); err != nil {
			return err
		}
		var unmade error
		if _, err := c.conn.CopyFrom(ctx, pgx.Identifier{"results"},
			[]string{"id", "import_id", "position", "run_key", "model", "concurrency", "imported_at", "format", "gpu_model", "verdict", "body"},
			pgx.CopyFromSlice(len(results), func(n int) ([]any, error) {
				var row resultRow
				row, unmade = newResultRow(results[n])
				return []any{row.id, row.importID, n, runKey, row.model, row.concurrency, imported.ImportedAt, format, run.Run.GPUModel, string(verdict.Verdict), row.body}, unmade
			})); err != nil {
			return cmp.Or(unmade, err)
		}
		packing.Wait()
		c.end.Queue("INSERT INTO files (import_id, zstd) VALUES ($1, $2)", imported.ID, packed)
		created = true
		return nil
	})
	return imported, created, explain(err)
}

// resultRow is a result as a row of the table.
type resultRow struct {
	id, importID uuid.UUID
	model        string
	concurrency  *int64
	body         json.RawMessage
}

func newResultRow(r catalog.Result) (row resultRow, err error) {
	row = resultRow{model: r.Model, concurrency: r.Concurrency}
	if row.id, err = uuid.Parse(r.ID); err != nil {
		return row, fmt.Errorf("id of a result: %w", err)
	}
	if row.importID, err = uuid.Parse(r.ImportID); err != nil {
		return row, fmt.Errorf("id of an import: %w", err)
	}
	if row.body, err = json.Marshal(r); err != nil {
		return row, fmt.Errorf("%w: result: %w", catalog.ErrInvalid, err)
	}
	return row, nil
}
