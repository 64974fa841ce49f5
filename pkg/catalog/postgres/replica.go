// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/spotbench/spotbench/pkg/catalog"
)

const (
	// lookEvery is how often replicas are asked how far they are.
	lookEvery = 200 * time.Millisecond
	// lookTime is how long they may take to say so.
	lookTime = time.Second
	// replicaTime is what a read may take on a replica before the primary is asked.
	replicaTime = 3 * time.Second
	// mostLag is how far a replica may be behind, in time, to be read by those who
	// have not written.
	mostLag = 5 * time.Second
)

// replica is a server that answers reads.
type replica struct {
	pool *pgxpool.Pool
	// state is what it was when it was last asked.
	state atomic.Pointer[replicaState]
}

type replicaState struct {
	// replayed is how far it is in the log, everything for one that was promoted.
	replayed uint64
	lag      time.Duration
	at       time.Time
}

func (o Options) openReplicas(ctx context.Context) (out []*replica, err error) {
	for _, url := range o.Replicas {
		one := o
		one.URL = url
		config, err := one.config()
		if err != nil {
			return nil, fmt.Errorf("replica: %w", err)
		}
		// It takes the reads of one that is away.
		config.ConnConfig.ConnectTimeout = lookTime
		pool, err := pgxpool.NewWithConfig(ctx, config)
		if err != nil {
			return nil, fmt.Errorf("replica: %w", err)
		}
		out = append(out, &replica{pool: pool})
	}
	return out, nil
}

// follow asks the replicas how far they are until stop is called.
func follow(replicas []*replica) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	for _, r := range replicas {
		group.Go(func() {
			for ctx.Err() == nil {
				r.look(ctx)
				select {
				case <-ctx.Done():
				case <-time.After(lookEvery):
				}
			}
		})
	}
	return func() { cancel(); group.Wait() }
}

func (r *replica) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	var replayed string
	var lag float64
	// A replica that has replayed all it got was level with its primary when it last heard
	// from it. One that is cut off hears nothing, and is not level for ever.
	err := r.pool.QueryRow(ctx, `SELECT CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_replay_lsn(), '0/0')::text ELSE 'FFFFFFFF/FFFFFFFF' END,
		CASE WHEN NOT pg_is_in_recovery() THEN 0
		ELSE coalesce(extract(epoch FROM now() - greatest(pg_last_xact_replay_timestamp(),
			(SELECT last_msg_receipt_time FROM pg_stat_wal_receiver WHERE status = 'streaming' AND pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn()))), 1e6) END::float8`).Scan(&replayed, &lag)
	position, ok := parsePosition(replayed)
	if err != nil || !ok {
		r.state.Store(nil)
		return
	}
	r.state.Store(&replicaState{position, time.Duration(lag * float64(time.Second)), time.Now()})
}

// parsePosition reads a place in the log as PostgreSQL writes it, 16/B374D848.
func parsePosition(text string) (uint64, bool) {
	var high, low uint32
	var rest string
	if n, _ := fmt.Sscanf(text, "%X/%X%s", &high, &low, &rest); n != 2 {
		return 0, false
	}
	return uint64(high)<<32 | uint64(low), true
}

// fit reports whether the replica may answer a read that must see the position.
func (r *replica) fit(position uint64) bool {
	state := r.state.Load()
	return state != nil && time.Since(state.at) < lookTime+2*lookEvery && state.lag <= mostLag && state.replayed >= position
}

// choose is a replica that may answer the request, or nil for the primary.
func (s *Store) choose(ctx context.Context) *replica {
	if len(s.replicas) == 0 {
		return nil
	}
	position := uint64(0)
	if session := catalog.SessionOf(ctx); session != nil {
		if session.Primary || session.Position() != "" {
			return nil
		}
		if session.Seen != "" {
			seen, ok := parsePosition(session.Seen)
			if !ok {
				return nil // it is not one of ours: be on the safe side
			}
			position = seen
		}
	}
	first := int(turn.Add(1) % uint64(len(s.replicas))) //nolint:gosec // less than their number
	for n := range s.replicas {
		if r := s.replicas[(first+n)%len(s.replicas)]; r.fit(position) {
			return r
		}
	}
	return nil
}

// turn shares reads among the replicas.
var turn atomic.Uint64

// read asks a replica, or the primary; the latter too when the replica fails for a
// reason of its own, or hangs. do may be called twice.
func (s *Store) read(ctx context.Context, do func(context.Context, *pgxpool.Pool) error) error {
	if r := s.choose(ctx); r != nil {
		limited, cancel := context.WithTimeout(ctx, replicaTime)
		err := do(limited, r.pool)
		cancel()
		if !elsewhere(ctx, err) {
			return err
		}
		r.state.Store(nil) // until it has answered again
	}
	return s.heed(do(ctx, s.pool))
}

// elsewhere reports whether another server may well do what this one could not: it
// is gone, or its replay was in the way.
func elsewhere(ctx context.Context, err error) bool {
	if err == nil || ctx.Err() != nil || errors.Is(err, catalog.ErrNotFound) || errors.Is(err, catalog.ErrInvalid) {
		return false
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return true // the connection, not the server's answer
	}
	return pg.Code == "40001" || pg.Code == "40P01" || pg.Code[:2] == "57" || pg.Code[:2] == "53" || pg.Code == "42P01"
}
