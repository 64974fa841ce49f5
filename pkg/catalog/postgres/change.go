// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// change is a transaction that writes. It goes to the database in as few round trips
// as there are answers to wait for: the first batch begins it, and the last has the
// line of the log of writes and the commit. Each round trip saved is also time in which
// the run is not locked.
type change struct {
	conn  *pgx.Conn
	begun bool
	// end is sent with the commit.
	end pgx.Batch
}

// send sends a batch and reads what it answers.
func (c *change) send(ctx context.Context, b *pgx.Batch) error {
	if !c.begun {
		c.begun = true
		var first pgx.Batch
		first.Queue("BEGIN")
		first.QueuedQueries = append(first.QueuedQueries, b.QueuedQueries...)
		b = &first
	}
	return c.conn.SendBatch(ctx, b).Close()
}

// exec sends one statement and gives the number of rows it changed.
func (c *change) exec(ctx context.Context, sql string, args ...any) (changed int64, err error) {
	var b pgx.Batch
	b.Queue(sql, args...).Exec(func(tag pgconn.CommandTag) error {
		changed = tag.RowsAffected()
		return nil
	})
	return changed, c.send(ctx, &b)
}

// returned sends one statement and gives the rows that it answers.
func returned[T any](ctx context.Context, c *change, scan func(row) (T, error), sql string, args ...any) ([]T, error) {
	var b pgx.Batch
	rows := queue(&b, scan, sql, args...)
	err := c.send(ctx, &b)
	return *rows, err
}

// commit ends the transaction. It files who asked for the write, if the context tells,
// and gives the place of the write in the log of the database if a session wants it.
func (c *change) commit(ctx context.Context) (position string, err error) {
	if entry, ok := catalog.WritingOf(ctx); ok {
		c.end.Queue("INSERT INTO audit (caller, operation, target, remote) VALUES ($1, $2, $3, $4)", entry.Caller, entry.Operation, entry.Target, entry.Remote)
	}
	c.end.Queue("COMMIT").Exec(func(tag pgconn.CommandTag) error {
		if tag.String() == "ROLLBACK" {
			return pgx.ErrTxCommitRollback
		}
		return nil
	})
	if catalog.SessionOf(ctx) != nil {
		c.end.Queue("SELECT pg_current_wal_insert_lsn()::text").QueryRow(func(answer pgx.Row) error { return answer.Scan(&position) })
	}
	return position, c.send(ctx, &c.end)
}

// abandon takes back what was written. Where that fails, the pool closes the
// connection, as it does with each that is still in a transaction.
func (c *change) abandon(ctx context.Context) {
	if c.conn.PgConn().TxStatus() != 'I' {
		_, _ = c.conn.Exec(ctx, "ROLLBACK")
	}
}

// write runs do in a transaction and files who asked for it, if the context tells.
// The request's session learns where the write is in the log, which replicas are asked
// about, and the cache.
func (s *Store) write(ctx context.Context, do func(*change) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.writeTime, errUnconfirmed)
	defer cancel()
	err := s.pool.AcquireFunc(ctx, func(conn *pgxpool.Conn) error {
		c := &change{conn: conn.Conn()}
		err := do(c)
		var position string
		if err == nil {
			position, err = c.commit(ctx)
		}
		c.abandon(ctx)
		data := c.conn.PgConn().CustomData()
		if unsafe := data[waitsForStandby] != nil; unsafe && err == nil {
			err = errUnconfirmed
		}
		delete(data, waitsForStandby)
		if session := catalog.SessionOf(ctx); err == nil && session != nil {
			session.Wrote(position)
		}
		return s.heed(err)
	})
	if err != nil && errors.Is(context.Cause(ctx), errUnconfirmed) {
		return fmt.Errorf("%w: %w", errUnconfirmed, err)
	}
	return err
}

// waitsForStandby is the routine of PostgreSQL that says of a commit that it is no
// longer waited for on a standby, because it was cancelled or the server shuts down.
// PostgreSQL then calls the commit done; to the catalog's writer it is not.
const waitsForStandby = "SyncRepWaitForLSN"

var errUnconfirmed = errors.New("the database did not confirm the write, on a standby if it has one; it may or may not be there: write it again")
