// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// inRun runs do in a transaction that holds the lock of the run's row, so that
// updates of one run follow each other, counts a new revision of the run, and
// judges it.
func (s *Store) inRun(ctx context.Context, key string, do func(pgx.Tx) error) error {
	if err := catalog.MayWrite(ctx, key); err != nil {
		return err
	}
	err := s.write(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, "UPDATE runs SET revision = revision + 1, updated_at = now() WHERE key = $1", key)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return fmt.Errorf("run %q: %w; create it first (PUT /v1/runs/{key})", key, catalog.ErrNotFound)
		}
		if err := do(tx); err != nil {
			return err
		}
		return judge(ctx, tx, key)
	})
	return explain(err)
}

// PutRun creates the run or merges the update into it, and gives what it is then
// with its revision. ifRevision, if not 0, is the revision the writer saw, or
// catalog.NotYet or catalog.AnyRevision.
func (s *Store) PutRun(ctx context.Context, key string, update catalog.Run, ifRevision int64) (catalog.Run, int64, error) {
	if err := catalog.MayWriteRun(ctx, key, update); err != nil {
		return catalog.Run{}, 0, err
	}
	var merged catalog.Run
	var revision int64
	err := s.write(ctx, func(tx pgx.Tx) error {
		if ifRevision == 0 || ifRevision == catalog.NotYet {
			made, err := tx.Exec(ctx, "INSERT INTO runs (key, revision) VALUES ($1, 0) ON CONFLICT (key) DO NOTHING", key)
			if err != nil {
				return err
			}
			if ifRevision == catalog.NotYet && made.RowsAffected() == 0 {
				return fmt.Errorf("run %q: %w: it is there already; leave out If-None-Match to update it", key, catalog.ErrChanged)
			}
		}
		old, seen, err := scanRun(tx.QueryRow(ctx, selectRun+" WHERE key = $1 FOR UPDATE", key))
		if errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("run %q: %w", key, catalog.ErrNotFound)
		}
		if err != nil {
			return err
		}
		if ifRevision > 0 && ifRevision != seen {
			return fmt.Errorf("run %q: %w (revision %d, not %d); read it again", key, catalog.ErrChanged, seen, ifRevision)
		}
		merged, revision = old.Merge(update), seen+1
		merged.Key = key
		if err := merged.Validate(); err != nil {
			return fmt.Errorf("%w: with what is known of the run already: %w", catalog.ErrInvalid, err)
		}
		_, err = tx.Exec(ctx, `UPDATE runs SET revision = $2, namespace = $3, pod_name = $4, pod_uid = $5, model = $6, benchmark = $7,
			image = $8, image_digest = $9, status = $10, gpu_model = $11, gpu_count = $12, node = $13, zone = $14, region = $15,
			instance_type = $16, capacity_type = $17, usd_per_hour = $18, on_demand_usd_per_hour = $19, placement_reason = $20,
			engine = $23, engine_version = $24, driver_version = $25, price_source = $26,
			started_at = $21::timestamptz, finished_at = $22, listed_at = coalesce($21::timestamptz, listed_at), updated_at = now() WHERE key = $1`,
			key, revision, merged.Namespace, merged.PodName, merged.PodUID, merged.Model, merged.Benchmark,
			merged.Image, merged.ImageDigest, merged.Status, merged.GPUModel, merged.GPUCount, merged.Node, merged.Zone, merged.Region,
			merged.InstanceType, merged.CapacityType, merged.USDPerHour, merged.OnDemandUSDPerHour, merged.PlacementReason,
			stamp(merged.StartedAt), stamp(merged.FinishedAt), merged.Engine, merged.EngineVersion, merged.DriverVersion, merged.PriceSource)
		if err != nil {
			return err
		}
		return judge(ctx, tx, key)
	})
	return merged, revision, explain(err)
}

// PutSegment creates one pod's stretch of a run or merges the update into it.
func (s *Store) PutSegment(ctx context.Context, key, podUID string, update catalog.Segment) (catalog.Segment, error) {
	var merged catalog.Segment
	err := s.inRun(ctx, key, func(tx pgx.Tx) error {
		old, err := collect(ctx, tx, scanSegment, selectSegments+" WHERE run_key = $1 AND pod_uid = $2", key, podUID)
		if err != nil {
			return err
		}
		for _, o := range old {
			merged = o
		}
		merged = merged.Merge(update)
		merged.PodUID = podUID
		if err := merged.Validate(); err != nil {
			return fmt.Errorf("%w: with what is known of the segment already: %w", catalog.ErrInvalid, err)
		}
		uuids := merged.GPUUUIDs
		if uuids == nil {
			uuids = []string{}
		}
		_, err = tx.Exec(ctx, `INSERT INTO segments (run_key, pod_uid, node, gpu_model, gpu_uuids, capacity_type, usd_per_hour, on_demand_usd_per_hour, started_at, ended_at, restored_generation,
			region, zone, instance_type)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
			ON CONFLICT (run_key, pod_uid) DO UPDATE SET node = excluded.node, gpu_model = excluded.gpu_model, gpu_uuids = excluded.gpu_uuids,
			capacity_type = excluded.capacity_type, usd_per_hour = excluded.usd_per_hour, on_demand_usd_per_hour = excluded.on_demand_usd_per_hour,
			started_at = excluded.started_at, ended_at = excluded.ended_at, restored_generation = excluded.restored_generation,
			region = excluded.region, zone = excluded.zone, instance_type = excluded.instance_type`,
			key, podUID, merged.Node, merged.GPUModel, uuids, merged.CapacityType, merged.USDPerHour, merged.OnDemandUSDPerHour,
			stamp(merged.StartedAt), stamp(merged.EndedAt), merged.RestoredGeneration, merged.Region, merged.Zone, merged.InstanceType)
		return err
	})
	return merged, err
}

// PutInterruption creates an interruption of a run or merges the update into it.
func (s *Store) PutInterruption(ctx context.Context, key, noticeID string, update catalog.Interruption) (catalog.Interruption, error) {
	var merged catalog.Interruption
	err := s.inRun(ctx, key, func(tx pgx.Tx) error {
		old, err := collect(ctx, tx, scanInterruption, selectInterruptions+" WHERE run_key = $1 AND notice_id = $2", key, noticeID)
		if err != nil {
			return err
		}
		for _, o := range old {
			merged = o
		}
		merged = merged.Merge(update)
		merged.RunKey, merged.NoticeID = key, noticeID
		if err := merged.Validate(); err != nil {
			return fmt.Errorf("%w: %w", catalog.ErrInvalid, err)
		}
		_, err = tx.Exec(ctx, `INSERT INTO interruptions (run_key, notice_id, kind, node, pod_uid, notice_at, tainted_at, checkpointed_at, evicted_at,
			restored_at, running_again_at, checkpoint_generation, checkpoint_bytes, work_lost_seconds, outcome, listed_at)
			VALUES ($1, $2, $3, $4, $5, $6::timestamptz, $7, $8, $9, $10, $11, $12, $13, $14, $15, coalesce($6::timestamptz, now()))
			ON CONFLICT (run_key, notice_id) DO UPDATE SET kind = excluded.kind, node = excluded.node, pod_uid = excluded.pod_uid, notice_at = excluded.notice_at,
			tainted_at = excluded.tainted_at, checkpointed_at = excluded.checkpointed_at, evicted_at = excluded.evicted_at, restored_at = excluded.restored_at,
			running_again_at = excluded.running_again_at, checkpoint_generation = excluded.checkpoint_generation, checkpoint_bytes = excluded.checkpoint_bytes,
			work_lost_seconds = excluded.work_lost_seconds, outcome = excluded.outcome,
			listed_at = coalesce(excluded.notice_at, interruptions.listed_at)`,
			key, noticeID, merged.Kind, merged.Node, merged.PodUID, stamp(merged.NoticeAt), stamp(merged.TaintedAt), stamp(merged.CheckpointedAt), stamp(merged.EvictedAt),
			stamp(merged.RestoredAt), stamp(merged.RunningAgainAt), merged.CheckpointGeneration, merged.CheckpointBytes, merged.WorkLostSeconds, merged.Outcome)
		return err
	})
	return merged, err
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
	err = s.inRun(ctx, key, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO telemetry (run_key, pod_uid, from_at, to_at, gpus, series) VALUES ($1, $2, $3, $4, $5, $6)
			ON CONFLICT (run_key, pod_uid) DO UPDATE SET from_at = excluded.from_at, to_at = excluded.to_at, gpus = excluded.gpus, series = coalesce(excluded.series, telemetry.series)`,
			key, podUID, stamp(telemetry.From), stamp(telemetry.To), body, course)
		if err != nil {
			return err
		}
		for _, g := range telemetry.GPUs {
			if g.Driver != "" { // a node has one
				_, err = tx.Exec(ctx, "UPDATE runs SET driver_version = $2 WHERE key = $1", key, g.Driver)
				break
			}
		}
		return err
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
	packed := pack(content)
	rows := make([]resultRow, len(results))
	for n, r := range results {
		if rows[n], err = newResultRow(r); err != nil {
			return imported, false, err
		}
	}
	err = s.write(ctx, func(tx pgx.Tx) error {
		var locked pgx.Batch
		locked.Queue("UPDATE runs SET revision = revision + 1, updated_at = now() WHERE key = $1", runKey)
		asked := queueRun(&locked, runKey)
		earlier := queue(&locked, scanImport, selectImports+" WHERE i.id = $1", imported.ID)
		if err := tx.SendBatch(ctx, &locked).Close(); err != nil {
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
		var writes pgx.Batch
		if file != "" {
			run.Results = slices.DeleteFunc(run.Results, func(r catalog.Result) bool { return r.File == file })
			writes.Queue(`WITH replaced AS (UPDATE imports SET superseded = true WHERE run_key = $1 AND file = $2 AND NOT superseded RETURNING id)
				UPDATE results SET superseded = true WHERE import_id IN (SELECT id FROM replaced)`, runKey, file)
		}
		// The verdict is found before the results are written, so that they are written once.
		run.Results = append(run.Results, results...)
		verdict := catalog.Judge(run)
		queueVerdict(&writes, run, verdict)
		writes.Queue("INSERT INTO imports (id, run_key, file, format, sha256, bytes, imported_at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
			imported.ID, runKey, file, format, imported.SHA256, imported.Bytes, imported.ImportedAt)
		writes.Queue("INSERT INTO files (import_id, zstd) VALUES ($1, $2)", imported.ID, packed)
		if err := tx.SendBatch(ctx, &writes).Close(); err != nil {
			return err
		}
		if _, err := tx.CopyFrom(ctx, pgx.Identifier{"results"},
			[]string{"id", "import_id", "position", "run_key", "model", "concurrency", "imported_at", "format", "gpu_model", "verdict", "body"},
			pgx.CopyFromSlice(len(rows), func(n int) ([]any, error) {
				r := rows[n]
				return []any{r.id, r.importID, n, runKey, r.model, r.concurrency, imported.ImportedAt, format, run.Run.GPUModel, string(verdict.Verdict), r.body}, nil
			})); err != nil {
			return err
		}
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
