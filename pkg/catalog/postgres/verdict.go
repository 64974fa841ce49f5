// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// judge writes the verdict on a run, whose lock the transaction holds.
func judge(ctx context.Context, tx pgx.Tx, key string) error {
	var b pgx.Batch
	asked := queueRun(&b, key)
	if err := tx.SendBatch(ctx, &b).Close(); err != nil {
		return err
	}
	run, err := asked.run(key)
	if err != nil {
		return err
	}
	var writes pgx.Batch
	queueVerdict(&writes, run, catalog.Judge(run))
	return tx.SendBatch(ctx, &writes).Close()
}

// wholeRun is a run with everything about it, once its batch has been sent.
type wholeRun struct {
	found *[]revisedRun
	parts partsQuery
}

func queueRun(b *pgx.Batch, key string) wholeRun {
	return wholeRun{queue(b, scanRevised, selectRun+" WHERE key = $1", key), queueParts(b, []string{key})}
}

func (w wholeRun) run(key string) (catalog.Parts, error) {
	for _, r := range *w.found {
		return w.parts.of([]catalog.Run{r.Run})[0], nil
	}
	return catalog.Parts{}, fmt.Errorf("run %q: %w", key, catalog.ErrNotFound)
}

// queueVerdict writes the verdict where filters find it: with the run and with its
// results, which also follow the run's GPU model.
func queueVerdict(b *pgx.Batch, run catalog.Parts, verdict catalog.Validity) {
	b.Queue("UPDATE runs SET verdict = $2, verdict_rules = $3, results = $4 WHERE key = $1", run.Run.Key, verdict.Verdict, verdict.Rules, len(run.Results))
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
			err := s.write(ctx, func(tx pgx.Tx) error {
				if _, err := tx.Exec(ctx, "SELECT FROM runs WHERE key = $1 FOR UPDATE", key); err != nil {
					return err
				}
				return judge(ctx, tx, key)
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
		w.args = append(w.args, keys)
		w.conditions = append(w.conditions, fmt.Sprintf("key = ANY($%d)", len(w.args)))
	} else {
		w.conditions = append(w.conditions, "results > 0")
	}
	err = s.snapshot(ctx, func(ctx context.Context, tx pgx.Tx) error {
		runs = nil // of an attempt before this one
		scan := func(from row) (catalog.Run, error) { r, _, err := scanRun(from); return r, err }
		found, err := collect(ctx, tx, scan, selectRun+w.sql("listed_at, key", query.OldestFirst, catalog.MaxMeasured), w.planned()...)
		if err != nil {
			return err
		}
		if more = len(found) > catalog.MaxMeasured; more {
			found = found[:catalog.MaxMeasured]
		}
		all, err := parts(ctx, tx, found)
		if err != nil {
			return err
		}
		for _, p := range all {
			runs = append(runs, catalog.Describe(p, s.now()))
		}
		return nil
	})
	if err != nil {
		return nil, false, explain(err)
	}
	if len(keys) == 0 {
		return runs, more, nil
	}
	named := make([]catalog.Detail, 0, len(keys))
	for n, key := range keys {
		if slices.Contains(keys[:n], key) {
			continue
		}
		at := slices.IndexFunc(runs, func(d catalog.Detail) bool { return d.Key == key })
		if at < 0 {
			return nil, false, fmt.Errorf("run %q, with these filters: %w", key, catalog.ErrNotFound)
		}
		named = append(named, runs[at])
	}
	return named, more, nil
}
