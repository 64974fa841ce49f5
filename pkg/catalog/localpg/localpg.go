// SPDX-License-Identifier: Apache-2.0

// Package localpg runs a PostgreSQL server of its own in a data directory, for a
// catalog that was given no database. The server listens on a unix socket in a
// private directory only, and never runs as root.
package localpg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spotbench/spotbench/pkg/debian"
)

const (
	database = "catalog"
	role     = "catalog"
	// pidFile is PostgreSQL's own lock on a data directory.
	pidFile = "postmaster.pid"
)

// Server is a running PostgreSQL.
type Server struct {
	cmd    *exec.Cmd
	socket string
	exited chan error
	log    *slog.Logger
}

// Start starts a server on the data directory, making the database in it the
// first time, and returns when it takes connections. PostgreSQL's programs are
// those of the machine; where there are none and we are root, Debian's package is
// installed. Settings are "name=value", as in postgresql.conf.
func Start(ctx context.Context, dataDir string, log *slog.Logger, settings ...string) (*Server, error) {
	bin, err := programs(ctx, log)
	if err != nil {
		return nil, err
	}
	owner, err := unprivileged()
	if err != nil {
		return nil, err
	}
	dataDir, err = filepath.Abs(dataDir)
	if err != nil {
		return nil, err
	}
	cluster, socket := filepath.Join(dataDir, "postgresql"), filepath.Join(dataDir, "socket")
	// A socket's path is at most 107 bytes long; a deep data directory gets a short one.
	if len(filepath.Join(socket, ".s.PGSQL.5432")) > 100 {
		if socket, err = os.MkdirTemp("", "pg-"); err != nil {
			return nil, err
		}
	}
	for _, dir := range []string{dataDir, socket} {
		if err := owner.makeDir(dir); err != nil {
			return nil, fmt.Errorf("data directory of the catalog's PostgreSQL: %w", err)
		}
	}
	if _, err := os.Stat(filepath.Join(cluster, "PG_VERSION")); errors.Is(err, os.ErrNotExist) {
		log.Info("making a PostgreSQL database", "dir", cluster)
		if err := initialize(ctx, owner, bin, cluster); err != nil {
			return nil, err
		}
	} else if err := clearStaleLock(ctx, cluster); err != nil {
		return nil, err
	}
	s := &Server{socket: socket, exited: make(chan error, 1), log: log}
	// Not bound to ctx: the server is stopped by Stop, which lets it finish its work.
	args := []string{"-D", cluster, "-k", socket}
	for _, setting := range append([]string{"listen_addresses=", "unix_socket_permissions=0700", "logging_collector=off", "log_min_messages=warning",
		"dynamic_shared_memory_type=mmap", "random_page_cost=1.1"}, settings...) {
		args = append(args, "-c", setting)
	}
	s.cmd = owner.command(context.WithoutCancel(ctx), filepath.Join(bin, "postgres"), args...)
	s.cmd.Stderr = &lineLog{log: log}
	if err := s.launch(); err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	if err := s.awaitReady(ctx, owner, bin); err != nil {
		return nil, errors.Join(err, s.Stop(context.WithoutCancel(ctx)))
	}
	return s, nil
}

// launch starts the server so that it is shut down when this process dies, whatever
// kills it.
func (s *Server) launch() error {
	s.cmd.SysProcAttr.Pdeathsig = syscall.SIGINT // fast shutdown
	started := make(chan error)
	go func() {
		// The kernel sends the signal when the thread ends that started the server, so
		// this one does nothing else until the server has ended.
		runtime.LockOSThread()
		err := s.cmd.Start()
		started <- err
		if err == nil {
			s.exited <- s.cmd.Wait()
		}
		close(s.exited)
	}()
	return <-started
}

// initialize makes the database cluster, whole or not at all: what a cut-off
// initdb leaves behind would pass for one.
func initialize(ctx context.Context, owner owner, bin, cluster string) error {
	part := cluster + ".new"
	if err := errors.Join(os.RemoveAll(part), os.RemoveAll(cluster), owner.makeDir(part)); err != nil {
		return err
	}
	initdb := owner.command(ctx, filepath.Join(bin, "initdb"), "--pgdata", part, "--username", role, "--auth", "trust",
		"--encoding", "UTF8", "--locale", "C.UTF-8", "--data-checksums")
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb in %s: %w: %s", part, err, bytes.TrimSpace(out))
	}
	return os.Rename(part, cluster)
}

// URL is the connection string of the catalog's database.
func (s *Server) URL() string {
	return fmt.Sprintf("postgres://%s@/%s?host=%s", role, database, s.socket)
}

// Stop stops the server. It is asked to finish what is being written, then to stop
// at once, and is killed when it has done neither in half a minute each or before
// ctx ends.
func (s *Server) Stop(ctx context.Context) error {
	// SIGINT is PostgreSQL's fast shutdown, SIGQUIT its immediate one.
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT} {
		if err := s.cmd.Process.Signal(signal); err != nil {
			return nil //nolint:nilerr // it has ended already
		}
		select {
		case <-s.exited: //nolint:errcheck // it was told to end; how it did does not matter
			return nil
		case <-ctx.Done():
		case <-time.After(30 * time.Second):
		}
	}
	return errors.Join(errors.New("PostgreSQL did not stop and was killed; it recovers at its next start"), s.cmd.Process.Kill())
}

// PID is the server's first process.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Exited is closed when the server has ended by itself; the catalog cannot go on.
func (s *Server) Exited() <-chan error { return s.exited }

// awaitReady waits until the database can be used, making it if need be.
func (s *Server) awaitReady(ctx context.Context, owner owner, bin string) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	var last []byte
	for {
		out, err := owner.command(ctx, filepath.Join(bin, "psql"), "-X", "-h", s.socket, "-U", role, "-d", "postgres", "-Atc",
			"SELECT 1 FROM pg_database WHERE datname = '"+database+"'").CombinedOutput()
		if err == nil {
			if strings.TrimSpace(string(out)) == "1" {
				return nil
			}
			out, err = owner.command(ctx, filepath.Join(bin, "psql"), "-X", "-h", s.socket, "-U", role, "-d", "postgres", "-c", "CREATE DATABASE "+database).CombinedOutput()
			if err == nil {
				return nil
			}
		}
		last = bytes.TrimSpace(out)
		select {
		case err := <-s.exited:
			return fmt.Errorf("PostgreSQL ended while starting: %w", err)
		case <-ctx.Done():
			return fmt.Errorf("PostgreSQL is not ready: %w: %s", ctx.Err(), last)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// leave is how long a server whose catalog was killed may take to shut down.
const leave = 10 * time.Second

// clearStaleLock removes the lock that a server left behind when it was killed.
// PostgreSQL does so itself unless another process has the number by now, which in
// a restarted container is the rule. A server that still shuts down is waited for.
func clearStaleLock(ctx context.Context, cluster string) error {
	path := filepath.Join(cluster, pidFile)
	for end := time.Now().Add(leave); ; {
		data, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		first, _, _ := strings.Cut(string(data), "\n")
		pid, err := strconv.Atoi(strings.TrimSpace(first))
		if err != nil || pid <= 0 || !serves(pid, cluster) {
			return os.Remove(path)
		}
		if time.Now().After(end) {
			return fmt.Errorf("a PostgreSQL server (process %d) already runs on %s; stop it, or give another data directory", pid, cluster)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// serves reports whether the process is a PostgreSQL server of this cluster. It
// works in the cluster's directory.
func serves(pid int, cluster string) bool {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil || !slices.Contains([]string{"postgres", "postmaster"}, strings.TrimSpace(string(name))) {
		return false
	}
	dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	if err != nil {
		return true // it cannot be told: better not to start than to start twice
	}
	real, err := filepath.EvalSymlinks(cluster)
	return err != nil || dir == real
}

// programs is the directory of PostgreSQL's programs.
func programs(ctx context.Context, log *slog.Logger) (string, error) {
	if dir, ok := find(); ok {
		return dir, nil
	}
	const hint = "install PostgreSQL 15 or newer (Debian: apt-get install postgresql), or give the URL of a database"
	missing := func() []string {
		if _, ok := find(); ok {
			return nil
		}
		return []string{"postgresql"}
	}
	err := debian.Install(ctx, missing, func(packages []string) {
		log.Info("no PostgreSQL on this machine; installing Debian's package", "package", packages[0])
	})
	if err != nil {
		return "", fmt.Errorf("%w; %s", err, hint)
	}
	dir, ok := find()
	if !ok {
		return "", errors.New("the package postgresql has no initdb: " + hint)
	}
	return dir, nil
}

// find looks for initdb where Debian puts it, newest version first, then in PATH.
func find() (string, bool) {
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.SortFunc(dirs, func(a, b string) int { return version(b) - version(a) })
	if path, err := exec.LookPath("initdb"); err == nil {
		dirs = append(dirs, filepath.Dir(path))
	}
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, "initdb")); err == nil {
			return dir, true
		}
	}
	return "", false
}

func version(dir string) int {
	v, err := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
	if err != nil {
		return 0
	}
	return v
}

// owner is the user that the server runs as.
type owner struct {
	uid, gid int
	drop     bool
}

// unprivileged is the present user, or for root the user postgres or nobody.
func unprivileged() (owner, error) {
	if os.Geteuid() != 0 {
		return owner{uid: os.Geteuid(), gid: os.Getegid()}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err := errors.Join(err1, err2); err != nil {
			return owner{}, fmt.Errorf("user %s: %w", name, err)
		}
		return owner{uid: uid, gid: gid, drop: true}, nil
	}
	return owner{}, errors.New("PostgreSQL does not run as root, and there is no user postgres or nobody; run the catalog as another user")
}

func (o owner) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C is for the catalog, which then stops it
	if o.drop {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(o.uid), Gid: uint32(o.gid)} //nolint:gosec // ids of the user database fit
	}
	return cmd
}

func (o owner) makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if o.drop {
		return os.Chown(dir, o.uid, o.gid)
	}
	return nil
}

// lineLog passes PostgreSQL's messages on as log records.
type lineLog struct {
	log  *slog.Logger
	rest []byte
}

func (l *lineLog) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		line, rest, ok := bytes.Cut(l.rest, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		l.log.Warn("postgresql", "line", string(line))
		l.rest = rest
	}
}

// Programs is the directory of PostgreSQL's programs, the newest on this machine.
func Programs() (string, bool) { return find() }
