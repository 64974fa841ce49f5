// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/localpg"
	"github.com/spotbench/spotbench/pkg/catalog/postgres"
)

// node is a PostgreSQL server of a primary with replicas.
type node struct {
	name, dir string
	cmd       *exec.Cmd
}

func (n *node) socket() string { return filepath.Join(n.dir, "s") }

func (n *node) url() string { return "postgres://catalog@/postgres?host=" + n.socket() }

// cluster is a primary and two streaming replicas, set up as the documentation says:
// each may become the primary, and a commit waits for one of the others.
type cluster struct {
	nodes []*node
	bin   string
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	bin, ok := localpg.Programs()
	if !ok {
		t.Fatal("no PostgreSQL on this machine")
	}
	c := &cluster{bin: bin}
	for _, name := range []string{"n0", "n1", "n2"} {
		dir, err := os.MkdirTemp("", "pg-"+name+"-")
		if err != nil {
			t.Fatal(err)
		}
		n := &node{name: name, dir: dir}
		c.nodes = append(c.nodes, n)
		t.Cleanup(func() {
			n.kill()
			_ = os.RemoveAll(dir)
		})
		if err := os.Mkdir(n.socket(), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, d := range []string{dir, n.socket()} {
			if id := credential(t); id != nil {
				if err := os.Chown(d, int(id.Uid), int(id.Gid)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	c.run(t, "initdb", "--pgdata", filepath.Join(c.nodes[0].dir, "data"), "--username", "catalog", "--auth", "trust", "--locale", "C.UTF-8", "--encoding", "UTF8", "--no-sync")
	c.start(t, c.nodes[0], "n0")
	for _, n := range c.nodes[1:] {
		c.run(t, "pg_basebackup", "--pgdata", filepath.Join(n.dir, "data"), "--host", c.nodes[0].socket(), "--username", "catalog", "--checkpoint", "fast", "--no-sync")
		if err := os.WriteFile(filepath.Join(n.dir, "data", "standby.signal"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		c.start(t, n, n.name)
	}
	// From here on a commit waits.
	query(t, c.nodes[0], "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (n0, n1, n2)'")
	query(t, c.nodes[0], "SELECT pg_reload_conf()")
	for _, n := range c.nodes[1:] {
		c.until(t, n.name+" streams", func() bool {
			return query(t, c.nodes[0], "SELECT count(*)::text FROM pg_stat_replication WHERE state = 'streaming' AND application_name = '"+n.name+"'") == "1"
		})
		if err := os.WriteFile(filepath.Join(n.dir, "data", "postgresql.auto.conf"), []byte("synchronous_standby_names = 'ANY 1 (n0, n1, n2)'\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		query(t, n, "SELECT pg_reload_conf()")
	}
	return c
}

// credential is who PostgreSQL runs as, nil for the present user.
func credential(t *testing.T) *syscall.Credential {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Fatal(err)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

func (c *cluster) command(t *testing.T, program string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), filepath.Join(c.bin, program), args...)
	cmd.Dir, cmd.SysProcAttr = "/", &syscall.SysProcAttr{Credential: credential(t), Setpgid: true}
	return cmd
}

func (c *cluster) run(t *testing.T, program string, args ...string) {
	t.Helper()
	if out, err := c.command(t, program, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", program, err, out)
	}
}

func (c *cluster) start(t *testing.T, n *node, name string) {
	t.Helper()
	sockets := make([]string, len(c.nodes))
	for i, other := range c.nodes {
		sockets[i] = other.socket()
	}
	n.cmd = c.command(t, "postgres", "-D", filepath.Join(n.dir, "data"), "-k", n.socket(), "-c", "listen_addresses=", "-c", "dynamic_shared_memory_type=mmap", "-c", "fsync=on", "-c", "shared_buffers=32MB",
		"-c", "max_connections=60", "-c", "wal_retrieve_retry_interval=200ms", "-c", "wal_receiver_timeout=5s",
		// A replica follows whichever of the others can be written to.
		"-c", "primary_conninfo=host="+strings.Join(sockets, ",")+" user=catalog target_session_attrs=read-write application_name="+name)
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.until(t, name+" answers", func() bool {
		conn, err := pgx.Connect(t.Context(), n.url())
		if err != nil {
			return false
		}
		return conn.Close(t.Context()) == nil
	})
}

// kill ends a server as the loss of its machine would.
func (n *node) kill() {
	if n.cmd == nil || n.cmd.Process == nil {
		return
	}
	_ = syscall.Kill(-n.cmd.Process.Pid, syscall.SIGKILL)
	_ = n.cmd.Wait()
	n.cmd = nil
}

// each sends a signal to every process of a server: PostgreSQL's have groups of
// their own.
func (n *node) each(t *testing.T, s syscall.Signal) {
	t.Helper()
	children, err := exec.CommandContext(t.Context(), "pgrep", "-P", strconv.Itoa(n.cmd.Process.Pid)).Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range append(strings.Fields(string(children)), strconv.Itoa(n.cmd.Process.Pid)) {
		pid, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		_ = syscall.Kill(pid, s) // it may have ended
	}
}

func (c *cluster) until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

func query(t *testing.T, n *node, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), n.url())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	rows, err := conn.Query(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	text := ""
	for rows.Next() {
		values := rows.RawValues()
		text = string(values[0])
	}
	if rows.Err() != nil {
		t.Fatal(rows.Err())
	}
	return text
}

// store is a catalog on the cluster, whichever is the primary.
func (c *cluster) store(t *testing.T, timeout time.Duration) *postgres.Store {
	t.Helper()
	var sockets, replicas []string
	for _, n := range c.nodes {
		sockets = append(sockets, n.socket())
		replicas = append(replicas, n.url())
	}
	s, err := postgres.Open(t.Context(), postgres.Options{URL: "postgres://catalog@/postgres?target_session_attrs=read-write&host=" + strings.Join(sockets, ","), Replicas: replicas[1:], StatementTimeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// TestNoAcknowledgedWriteIsLostWhenThePrimaryIsKilledAndAReplicaPromoted has writers
// that read each write back at once, from replicas, while the primary is killed and
// the replica that has most is promoted.
func TestNoAcknowledgedWriteIsLostWhenThePrimaryIsKilledAndAReplicaPromoted(t *testing.T) {
	c := newCluster(t)
	s := c.store(t, 10*time.Second)
	if _, err := s.MigrateUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var acknowledged []string
	var killedAt, promotedAt, backAt time.Time
	var failed, unseen atomic.Int64
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for w := range 6 {
		writers.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				key := fmt.Sprintf("load/w%d-%d", w, n)
				state := &catalog.Session{}
				if _, _, err := s.PutRun(catalog.WithSession(context.Background(), state), key, catalog.Run{Model: "m"}, 0); err != nil {
					failed.Add(1)
					time.Sleep(20 * time.Millisecond)
					continue
				}
				mu.Lock()
				acknowledged = append(acknowledged, key)
				if !promotedAt.IsZero() && backAt.IsZero() {
					backAt = time.Now()
				}
				mu.Unlock()
				if state.Position() == "" {
					t.Error("a write has no position")
				}
				// Another request, which carries what the write's answer said.
				if _, err := s.GetRun(catalog.WithSession(context.Background(), &catalog.Session{Seen: state.Position()}), key); errors.Is(err, catalog.ErrNotFound) {
					unseen.Add(1)
				}
			}
		})
	}
	count := func() int { mu.Lock(); defer mu.Unlock(); return len(acknowledged) }
	c.until(t, "200 writes", func() bool { return count() >= 200 })
	killedAt = time.Now()
	c.nodes[0].kill()
	before := count()
	// Both are asked how far they are; of the acknowledged writes, one has each.
	c.until(t, "the replicas noticed", func() bool {
		return query(t, c.nodes[1], "SELECT count(*)::text FROM pg_stat_wal_receiver WHERE status = 'streaming'")+query(t, c.nodes[2], "SELECT count(*)::text FROM pg_stat_wal_receiver WHERE status = 'streaming'") == "00"
	})
	best := slices.MaxFunc(c.nodes[1:], func(a, b *node) int {
		return strings.Compare(query(t, a, "SELECT lpad(to_hex((pg_last_wal_receive_lsn() - '0/0')::bigint), 16, '0')"), query(t, b, "SELECT lpad(to_hex((pg_last_wal_receive_lsn() - '0/0')::bigint), 16, '0')"))
	})
	mu.Lock()
	promotedAt = time.Now()
	mu.Unlock()
	query(t, best, "SELECT pg_promote()")
	c.until(t, "writes go on", func() bool { return count() >= before+200 })
	close(stop)
	writers.Wait()
	lost := 0
	for _, key := range acknowledged {
		if query(t, best, "SELECT count(*)::text FROM runs WHERE key = '"+key+"'") != "1" {
			lost++
		}
	}
	if lost > 0 || unseen.Load() > 0 {
		t.Errorf("%d of %d acknowledged writes are lost, %d were not seen by their writer", lost, len(acknowledged), unseen.Load())
	}
	t.Logf("%d writes acknowledged, %d before the kill; %d failed and were not; %v from the kill to the next, of which %v were after the promotion",
		len(acknowledged), before, failed.Load(), backAt.Sub(killedAt).Round(time.Millisecond), backAt.Sub(promotedAt).Round(time.Millisecond))
}

// TestAWriteThatNoStandbyConfirmedIsNotAcknowledged: PostgreSQL itself would call it
// done once it may wait no longer.
func TestAWriteThatNoStandbyConfirmedIsNotAcknowledged(t *testing.T) {
	c := newCluster(t)
	s := c.store(t, time.Second)
	if _, err := s.MigrateUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, s, "ns/confirmed", catalog.Run{Model: "m"})
	for _, n := range c.nodes[1:] {
		n.each(t, syscall.SIGSTOP)
	}
	const unconfirmed = "the database did not confirm the write"
	began := time.Now()
	if _, _, err := s.PutRun(t.Context(), "ns/unconfirmed", catalog.Run{Model: "m"}, 0); err == nil || !strings.Contains(err.Error(), unconfirmed) || time.Since(began) > 10*time.Second {
		t.Errorf("with both standbys stopped: %v after %v", err, time.Since(began))
	}
	// Somebody cancels what waits: PostgreSQL then says that it is done, and warns.
	patient := c.store(t, 30*time.Second)
	ended := make(chan error, 1)
	go func() {
		_, _, err := patient.PutRun(context.Background(), "ns/cancelled", catalog.Run{Model: "m"}, 0)
		ended <- err
	}()
	c.until(t, "the wait was cancelled", func() bool {
		return query(t, c.nodes[0], "SELECT count(pg_cancel_backend(pid))::text FROM pg_stat_activity WHERE wait_event = 'SyncRep'") != "0"
	})
	if err := <-ended; err == nil || !strings.Contains(err.Error(), unconfirmed) {
		t.Errorf("a write whose wait was cancelled: %v", err)
	}
	// Reads go on, from the primary.
	if _, err := s.GetRun(t.Context(), "ns/confirmed"); err != nil {
		t.Errorf("a read with both replicas stopped: %v", err)
	}
	for _, n := range c.nodes[1:] {
		n.each(t, syscall.SIGCONT)
	}
	c.until(t, "the same write again is acknowledged", func() bool {
		_, _, err := s.PutRun(t.Context(), "ns/unconfirmed", catalog.Run{Model: "m"}, 0)
		return err == nil
	})
}

// TestAReplicaAnswersWhileItHearsFromItsPrimaryAndNotLongAfter stops the primary, so
// that a read is only answered if a replica does.
func TestAReplicaAnswersWhileItHearsFromItsPrimaryAndNotLongAfter(t *testing.T) {
	c := newCluster(t)
	s := c.store(t, 10*time.Second)
	if _, err := s.MigrateUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	written := &catalog.Session{}
	if _, _, err := s.PutRun(catalog.WithSession(t.Context(), written), "ns/r", catalog.Run{Model: "m"}, 0); err != nil {
		t.Fatal(err)
	}
	for _, n := range c.nodes[1:] {
		c.until(t, n.name+" has replayed the write", func() bool {
			return query(t, n, "SELECT (pg_last_wal_replay_lsn() >= '"+written.Position()+"')::text") == "true"
		})
	}
	// Nothing is written for longer than a replica may be behind: it is level all the same.
	time.Sleep(6 * time.Second)
	read := func() error {
		ctx, cancel := context.WithTimeout(catalog.WithSession(t.Context(), &catalog.Session{Seen: written.Position()}), time.Second)
		defer cancel()
		_, err := s.GetRun(ctx, "ns/r")
		return err
	}
	c.nodes[0].each(t, syscall.SIGSTOP)
	defer c.nodes[0].each(t, syscall.SIGCONT)
	if err := read(); err != nil {
		t.Errorf("no replica answers: %v", err)
	}
	// Now they hear nothing more.
	c.until(t, "the replicas are left alone", func() bool { return read() != nil })
}
