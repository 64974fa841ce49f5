// SPDX-License-Identifier: Apache-2.0

// Package postgres keeps the catalog in PostgreSQL. Every write may be repeated:
// updates merge under the row lock of their run, and an import's names follow
// from its content.
package postgres

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/spotbench/spotbench/pkg/catalog"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Store is a catalog in a database. It is safe for concurrent use.
type Store struct {
	pool     *pgxpool.Pool
	replicas []*replica
	now      func() time.Time
	stop     func()
	// writeTime is what a write may take. PostgreSQL's own limit on statements does not
	// hold for the wait of a commit for a standby.
	writeTime time.Duration
}

// Options are how a database is used.
type Options struct {
	// URL is its address, a URL or keyword string as PostgreSQL's own clients take it.
	URL string
	// Password, if not empty, replaces the one in the URL.
	Password string
	// Replicas are the addresses of streaming replicas that answer reads; they may
	// have been promoted since. Password holds for them as well.
	Replicas []string
	// Connections is the most that are open at once; 0 is DefaultConnections.
	Connections int
	// StatementTimeout is what one statement may take; 0 is DefaultStatementTimeout.
	StatementTimeout time.Duration
	// Notice, if not nil, gets what the server says besides answers: plans, for one,
	// where auto_explain is loaded.
	Notice func(text string)
}

const (
	// DefaultConnections keeps a database's processors busy, and leaves most of its
	// hundred connections to others.
	DefaultConnections = 16
	// DefaultStatementTimeout ends what nobody waits for any more.
	DefaultStatementTimeout = 30 * time.Second
	// migrationLockTime is how long a step of the schema waits for a table.
	migrationLockTime = 30 * time.Second
)

// Open connects to the database.
func Open(ctx context.Context, o Options) (*Store, error) {
	config, err := o.config()
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	s := &Store{pool: pool, now: time.Now, writeTime: 2 * cmp.Or(o.StatementTimeout, DefaultStatementTimeout)}
	if s.replicas, err = o.openReplicas(ctx); err != nil {
		pool.Close()
		return nil, err
	}
	s.stop = follow(s.replicas)
	return s, nil
}

func (o Options) config() (*pgxpool.Config, error) {
	config, err := pgxpool.ParseConfig(o.URL)
	if err != nil {
		// pgx's message repeats the string with its password blanked.
		return nil, fmt.Errorf("database URL: %w; use for example postgres://catalog@db.example/catalog?sslmode=verify-full", err)
	}
	if o.Password != "" {
		config.ConnConfig.Password = o.Password
	}
	config.MaxConns = int32(min(cmp.Or(o.Connections, DefaultConnections), 1000)) //nolint:gosec // it is in range
	config.ConnConfig.RuntimeParams["application_name"] = "spotbench-catalog"
	config.ConnConfig.RuntimeParams["statement_timeout"] = strconv.FormatInt(cmp.Or(o.StatementTimeout, DefaultStatementTimeout).Milliseconds(), 10)
	// A transaction of a server that hangs must not hold a run's lock for ever.
	config.ConnConfig.RuntimeParams["idle_in_transaction_session_timeout"] = "60000"
	config.ConnConfig.OnNotice = func(c *pgconn.PgConn, n *pgconn.Notice) {
		if n.Routine == waitsForStandby {
			c.CustomData()[waitsForStandby] = true
		}
		if o.Notice != nil {
			o.Notice(n.Message)
		}
	}
	return config, nil
}

// heed drops the connections to a server that is no primary any more, so that the
// next ones look for it among the addresses.
func (s *Store) heed(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && (pg.Code == "25006" || pg.Code == "57P01" || pg.Code == "57P03") { // read only, shut down, starting
		s.pool.Reset()
	}
	return err
}

// Close ends all connections.
func (s *Store) Close() {
	s.stop()
	for _, r := range s.replicas {
		r.pool.Close()
	}
	s.pool.Close()
}

// Ping reports whether the database answers and has the schema of this build, or of a
// newer one.
func (s *Store) Ping(ctx context.Context) error {
	var has int64
	if err := s.pool.QueryRow(ctx, "SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied").Scan(&has); err != nil {
		return fmt.Errorf("database: %w", err)
	}
	want, err := schemaVersion()
	if err != nil {
		return err
	}
	if has < want {
		return fmt.Errorf("database: its schema is of version %d, this program's of %d; run `catalog-api migrate up`", has, want)
	}
	return nil
}

// schemaVersion is that of the newest step.
var schemaVersion = sync.OnceValues(func() (newest int64, err error) {
	steps, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return 0, fmt.Errorf("steps of the schema: %w", err)
	}
	for _, file := range steps {
		version, err := goose.NumericComponent(file)
		if err != nil {
			return 0, fmt.Errorf("step %s of the schema: %w", file, err)
		}
		newest = max(newest, version)
	}
	return newest, nil
})

// Migration is one step of the schema.
type Migration struct {
	Version int64
	File    string
	Applied bool
}

func (s *Store) provider(ctx context.Context, do func(context.Context, *goose.Provider) error) error {
	steps, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	// Two replicas that start at once must not both migrate: the other one waits, for up
	// to an hour.
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(5, 720))
	if err != nil {
		return err
	}
	// A step may rewrite a large table, and takes the time that it takes. It does not
	// wait long for a table, though: whoever asks for the table after it waits behind it.
	config := s.pool.Config().ConnConfig
	config.RuntimeParams["statement_timeout"] = "0"
	config.RuntimeParams["lock_timeout"] = strconv.FormatInt(migrationLockTime.Milliseconds(), 10)
	db := stdlib.OpenDB(*config)
	defer db.Close()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, steps, goose.WithSessionLocker(locker))
	if err != nil {
		return err
	}
	return do(ctx, provider)
}

// MigrateUp brings the schema to this build's and gives the number of steps done.
func (s *Store) MigrateUp(ctx context.Context) (int, error) {
	done := 0
	err := s.provider(ctx, func(ctx context.Context, p *goose.Provider) error {
		results, err := p.Up(ctx)
		done = len(results)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("migrate the database: %w", err)
	}
	return done, nil
}

// MigrateDown takes back the newest step; what it had stored is lost.
func (s *Store) MigrateDown(ctx context.Context) error {
	err := s.provider(ctx, func(ctx context.Context, p *goose.Provider) error {
		_, err := p.Down(ctx)
		return err
	})
	if err != nil {
		return fmt.Errorf("take back a migration: %w", err)
	}
	return nil
}

// MigrateStatus is every step and whether the database has it.
func (s *Store) MigrateStatus(ctx context.Context) ([]Migration, error) {
	var out []Migration
	err := s.provider(ctx, func(ctx context.Context, p *goose.Provider) error {
		status, err := p.Status(ctx)
		for _, m := range status {
			out = append(out, Migration{Version: m.Source.Version, File: m.Source.Path, Applied: m.State == goose.StateApplied})
		}
		return err
	})
	return out, err
}

// explain turns what PostgreSQL says about a value into the domain's errors.
func explain(err error) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return err
	}
	switch pg.Code {
	case "22021", "22P05": // a NUL character, or bytes that are no text
		return fmt.Errorf("%w: a text has a character that cannot be stored (NUL); remove it", catalog.ErrInvalid)
	case "22003", "22007", "22008", "22P02": // no number, no time, or one that is too large
		return fmt.Errorf("%w: %s; take pageToken from the page before as it is", catalog.ErrInvalid, pg.Message)
	case "23514": // check constraint
		return fmt.Errorf("%w: %s", catalog.ErrInvalid, pg.Message)
	case "23503": // foreign key
		return fmt.Errorf("run: %w", catalog.ErrNotFound)
	}
	return err
}

// stamp is a time as the database keeps it: UTC, whole microseconds, null for none.
func stamp(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC().Truncate(time.Microsecond)
	return &t
}

// moment is a time of the database.
func moment(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}
