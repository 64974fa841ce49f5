// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// wholeRun is a run with everything about it, once its batch has been sent.
type wholeRun struct {
	found *[]stampedRun
	parts partsQuery
}

// revisedRun is a run with everything about it, and its revision.
type revisedRun struct {
	catalog.Parts
	revision int64
}

// queueRun asks for a run. lock, if not empty, is how to lock its row: what is asked
// after that is of after the lock.
func queueRun(b *pgx.Batch, key, lock string) wholeRun {
	return wholeRun{queue(b, scanStamped, selectRun+" WHERE key = $1"+lock, key), queueParts(b, []string{key})}
}

func (w wholeRun) run(key string) (revisedRun, error) {
	for _, r := range *w.found {
		return revisedRun{w.parts.of([]catalog.Run{r.Run})[0], r.revision}, nil
	}
	return revisedRun{}, fmt.Errorf("run %q: %w", key, catalog.ErrNotFound)
}

// queueChanged counts a new revision of a run whose parts changed, and writes the
// verdict where filters find it: with the run and with its results.
func queueChanged(b *pgx.Batch, run catalog.Parts, verdict catalog.Validity) {
	b.Queue("UPDATE runs SET revision = revision + 1, updated_at = now(), driver_version = $2, verdict = $3, verdict_rules = $4, results = $5 WHERE key = $1",
		run.Run.Key, run.Run.DriverVersion, verdict.Verdict, verdict.Rules, len(run.Results))
	queueResultsVerdict(b, run, verdict)
}

// queueResultsVerdict writes what results follow of their run: its verdict and its GPU
// model.
func queueResultsVerdict(b *pgx.Batch, run catalog.Parts, verdict catalog.Validity) {
	if len(run.Results) > 0 {
		b.Queue("UPDATE results SET verdict = $2, gpu_model = $3 WHERE run_key = $1 AND "+current+" AND (verdict <> $2 OR gpu_model <> $3)",
			run.Run.Key, verdict.Verdict, run.Run.GPUModel)
	}
}

// Rejudge writes anew the verdicts that were found by other rules than this
// build's, and gives their number. Several servers may do it at once.
func (s *Store) Rejudge(ctx context.Context) (int, error) {
	done := 0
	scan := func(from row) (key string, err error) { return key, from.Scan(&key) }
	for {
		keys, err := collect(ctx, s.pool, scan, "SELECT key FROM runs WHERE verdict_rules <> $1 ORDER BY key LIMIT 200", catalog.RulesVersion)
		if err != nil || len(keys) == 0 {
			return done, explain(err)
		}
		for _, key := range keys {
			err := s.write(ctx, func(c *change) error {
				run, err := lockRun(ctx, c, key)
				if err != nil {
					return err
				}
				verdict := catalog.Judge(run.Parts)
				c.end.Queue("UPDATE runs SET verdict = $2, verdict_rules = $3, results = $4 WHERE key = $1", key, verdict.Verdict, verdict.Rules, len(run.Results))
				queueResultsVerdict(&c.end, run.Parts, verdict)
				return nil
			})
			if err != nil {
				return done, fmt.Errorf("judge run %q: %w", key, explain(err))
			}
			done++
		}
	}
}

// Measured are the runs with results that match, whole: those named, in their
// order, or the newest. More than catalog.MaxMeasured there are not; more says
// whether some were left out for that.
func (s *Store) Measured(ctx context.Context, keys []string, query catalog.RunQuery) (runs []catalog.Detail, more bool, err error) {
	w := whereRuns(ctx, query)
	if len(keys) > 0 {
		runs, err = s.named(ctx, keys, w)
		return runs, false, err
	}
	w.conditions = append(w.conditions, "results > 0")
	err = s.snapshot(ctx, func(ctx context.Context, tx pgx.Tx) error {
		runs = nil // of an attempt before this one
		found, err := collect(ctx, tx, scanStamped, selectRun+w.sql("listed_at, key", query.OldestFirst, catalog.MaxMeasured), w.planned()...)
		if err != nil {
			return err
		}
		if more = len(found) > catalog.MaxMeasured; more {
			found = found[:catalog.MaxMeasured]
		}
		all, err := parts(ctx, tx, own(found))
		if err != nil {
			return err
		}
		for _, p := range all {
			runs = append(runs, catalog.Describe(p, s.now()))
		}
		return nil
	})
	return runs, more, explain(err)
}

// named are the runs of these keys, in their order; it is an error if one does not
// match.
func (s *Store) named(ctx context.Context, keys []string, w where) ([]catalog.Detail, error) {
	w.args = append(w.args, keys)
	w.conditions = append(w.conditions, fmt.Sprintf("key = ANY($%d)", len(w.args)))
	var found *[]stampedRun
	var asked partsQuery
	err := s.read(ctx, func(ctx context.Context, pool *pgxpool.Pool) error {
		// One round trip, and one state of the database, as for a single run.
		var b pgx.Batch
		b.Queue("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
		found = queue(&b, scanStamped, selectRun+w.all(), w.args...)
		asked = queueParts(&b, keys)
		b.Queue("COMMIT")
		return pool.SendBatch(ctx, &b).Close()
	})
	if err != nil {
		return nil, explain(err)
	}
	for _, key := range keys {
		if !slices.ContainsFunc(*found, func(r stampedRun) bool { return r.Key == key }) {
			return nil, fmt.Errorf("run %q, with these filters: %w", key, catalog.ErrNotFound)
		}
	}
	runs := make([]catalog.Detail, 0, len(keys))
	all := asked.of(own(*found))
	for n, key := range keys {
		if !slices.Contains(keys[:n], key) {
			at := slices.IndexFunc(all, func(p catalog.Parts) bool { return p.Run.Key == key })
			runs = append(runs, catalog.Describe(all[at], s.now()))
		}
	}
	return runs, nil
}

// own are the runs' own fields.
func own(found []stampedRun) []catalog.Run {
	runs := make([]catalog.Run, len(found))
	for n, r := range found {
		runs[n] = r.Run
	}
	return runs
}
