// SPDX-License-Identifier: Apache-2.0

// Package filling fills a catalog's database with made-up runs and results, as
// fast as COPY goes.
package filling

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// Shape is how much there is of what. The same shape is the same rows.
type Shape struct {
	Runs, ResultsPerRun int
	// End is when the newest run was imported; they lie in the two years before.
	End time.Time
}

// Results is the number of results.
func (s Shape) Results() int { return s.Runs * s.ResultsPerRun }

// batch is how many runs one COPY has.
const batch = 500

// Fill fills an empty database that has the schema. Secondary indexes of the large
// tables are made after the rows, which is many times faster, and foreign keys are
// not checked row by row: the role must be a superuser. told, if not nil, hears of
// each step.
func Fill(ctx context.Context, url string, shape Shape, told func(step string)) error {
	if told == nil {
		told = func(string) {}
	}
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("database to fill: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	indexes, err := dropIndexes(ctx, conn)
	if err != nil {
		return err
	}
	began := time.Now()
	const writers = 2
	var next atomic.Int64
	group, copying := errgroup.WithContext(ctx)
	for range writers {
		group.Go(func() error { return write(copying, url, shape, &next) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	told(fmt.Sprintf("%d results by COPY in %.0f s", shape.Results(), time.Since(began).Seconds()))
	began = time.Now()
	if _, err := conn.Exec(ctx, "SET maintenance_work_mem = '512MB'; SET max_parallel_maintenance_workers = 2"); err != nil {
		return fmt.Errorf("settings for indexes: %w", err)
	}
	for _, index := range indexes {
		if _, err := conn.Exec(ctx, index); err != nil {
			return fmt.Errorf("%s: %w", index, err)
		}
	}
	told(fmt.Sprintf("%d indexes in %.0f s", len(indexes), time.Since(began).Seconds()))
	// Without the map of visible rows, the list of models would read every run.
	_, err = conn.Exec(ctx, "VACUUM (ANALYZE)")
	return err
}

// dropIndexes takes away the indexes that are no constraint, and gives what makes
// them again.
func dropIndexes(ctx context.Context, conn *pgx.Conn) ([]string, error) {
	rows, err := conn.Query(ctx, `SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
		WHERE c.relname IN ('runs', 'results', 'imports', 'segments', 'interruptions', 'telemetry')
		AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid) ORDER BY 1`)
	if err != nil {
		return nil, fmt.Errorf("indexes: %w", err)
	}
	var names, again []string
	var name, definition string
	if _, err := pgx.ForEachRow(rows, []any{&name, &definition}, func() error {
		names, again = append(names, name), append(again, definition)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("indexes: %w", err)
	}
	_, err = conn.Exec(ctx, "DROP INDEX "+strings.Join(names, ", "))
	return again, err
}

// write copies batches of runs until none is left.
func write(ctx context.Context, url string, shape Shape, next *atomic.Int64) (err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	if _, err := conn.Exec(ctx, "SET session_replication_role = replica; SET synchronous_commit = off"); err != nil {
		return fmt.Errorf("settings of the loader: %w", err)
	}
	for {
		first := int(next.Add(batch)) - batch
		if first >= shape.Runs {
			return nil
		}
		var t tables
		for n := first; n < min(first+batch, shape.Runs); n++ {
			if err := t.add(shape, n); err != nil {
				return err
			}
		}
		for _, table := range t.all() {
			if _, err := conn.CopyFrom(ctx, pgx.Identifier{table.name}, table.columns, pgx.CopyFromRows(table.rows)); err != nil {
				return fmt.Errorf("copy into %s: %w", table.name, err)
			}
		}
	}
}
