// SPDX-License-Identifier: Apache-2.0

package localpg_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/spotbench/spotbench/pkg/catalog/localpg"
)

// dataDir is a directory that another user may reach: PostgreSQL does not run as root.
func dataDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "localpg-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func start(t *testing.T, dir string) *localpg.Server {
	t.Helper()
	s, err := localpg.Start(t.Context(), dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func query(t *testing.T, s *localpg.Server, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var got string
	if err := conn.QueryRow(t.Context(), sql).Scan(&got); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return got
}

func execute(t *testing.T, s *localpg.Server, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func TestWhatIsWrittenIsThereAfterARestart(t *testing.T) {
	dir := dataDir(t)
	s := start(t, dir)
	execute(t, s, "CREATE TABLE kept AS SELECT 'yes'::text AS v")
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = start(t, dir)
	defer func() { _ = s.Stop(t.Context()) }()
	if got := query(t, s, "SELECT v FROM kept"); got != "yes" {
		t.Errorf("got %q", got)
	}
	if got := query(t, s, "SHOW listen_addresses"); got != "" {
		t.Errorf("it listens on the network: %q", got)
	}
}

func TestAServerThatWasKilledStartsAgain(t *testing.T) {
	dir := dataDir(t)
	if err := start(t, dir).Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The lock of a killed server whose number another process has now: ours.
	lock := filepath.Join(dir, "postgresql", "postmaster.pid")
	if err := os.WriteFile(lock, []byte("1\n/elsewhere\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, dir)
	defer func() { _ = s.Stop(t.Context()) }()
	if got := query(t, s, "SELECT 'alive'"); got != "alive" {
		t.Errorf("got %q", got)
	}
}

// keeperEnv makes the test binary a program that starts a server and waits to be killed.
const keeperEnv = "LOCALPG_TEST_KEEPER"

func TestMain(m *testing.M) {
	dir := os.Getenv(keeperEnv)
	if dir == "" {
		os.Exit(m.Run())
	}
	if _, err := localpg.Start(context.Background(), dir, slog.New(slog.DiscardHandler)); err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	fmt.Println("started")
	select {}
}

func TestWhenTheCatalogIsKilledItsServerEndsAndTheNextStartFindsWhatWasWritten(t *testing.T) {
	dir := dataDir(t)
	s := start(t, dir)
	execute(t, s, "CREATE TABLE kept AS SELECT 'yes'::text AS v")
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	keeper := exec.CommandContext(t.Context(), os.Args[0])
	keeper.Env = append(os.Environ(), keeperEnv+"="+dir)
	out, err := keeper.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := keeper.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "started\n" {
		t.Fatalf("the keeper says %q, %v", line, err)
	}
	if err := keeper.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = keeper.Wait() // it was killed
	s = start(t, dir)
	defer func() { _ = s.Stop(t.Context()) }()
	if got := query(t, s, "SELECT v FROM kept"); got != "yes" {
		t.Errorf("got %q", got)
	}
}

func TestTwoServersDoNotShareADirectory(t *testing.T) {
	dir := dataDir(t)
	s := start(t, dir)
	defer func() { _ = s.Stop(t.Context()) }()
	_, err := localpg.Start(t.Context(), dir, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "already runs on "+dir) {
		t.Errorf("error %v", err)
	}
}

func TestADirectoryTooDeepForASocketStillWorks(t *testing.T) {
	dir := filepath.Join(dataDir(t), strings.Repeat("deep/", 20))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for p := dir; p != "/tmp"; p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := start(t, dir)
	defer func() { _ = s.Stop(t.Context()) }()
	if got := query(t, s, "SELECT 'alive'"); got != "alive" {
		t.Errorf("got %q", got)
	}
}
