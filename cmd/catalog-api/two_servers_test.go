// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/spotbench/spotbench/pkg/catalog/auth"
	"github.com/spotbench/spotbench/pkg/catalog/localpg"
)

// asProgram makes the test's own binary the program, so that a test can have
// processes that it can kill.
const asProgram = "CATALOG_API_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) == "" {
		os.Exit(m.Run())
	}
	if err := command().ExecuteContext(context.Background()); err != nil {
		os.Exit(1)
	}
}

// process is a catalog-api of its own.
type process struct {
	cmd *exec.Cmd
	url string
}

func newProcess(t *testing.T, database, tokens string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	log := &buffer{}
	cmd := exec.CommandContext(t.Context(), self, "serve", "--database-url", database, "--data-dir", t.TempDir(), "--listen", "127.0.0.1:0", "--listen-read-only", "127.0.0.1:0", "--writer-tokens", tokens)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(time.Minute); strings.Count(log.String(), `"listening"`) < 2; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not listen:\n%s", log)
		}
	}
	address, _ := addresses(t, log)
	return &process{cmd, "https://" + address}
}

func (p *process) send(ctx context.Context, method, path, token, body string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, method, p.url+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	// Each process has a certificate of its own, and a connection of its own may die with it.
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// held locks the run, as a slow writer would, until release is called.
func held(t *testing.T, database, key string) (release func(), waiting func(n int)) {
	t.Helper()
	connect := func() *pgx.Conn {
		conn, err := pgx.Connect(t.Context(), database)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
		return conn
	}
	locker, watcher := connect(), connect()
	tx, err := locker.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "SELECT 1 FROM runs WHERE key = $1 FOR UPDATE", key); err != nil {
		t.Fatal(err)
	}
	release = func() {
		if err := tx.Rollback(t.Context()); err != nil {
			t.Error(err)
		}
	}
	waiting = func(n int) {
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			var blocked int
			if err := watcher.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'").Scan(&blocked); err != nil {
				t.Fatal(err)
			}
			if blocked >= n {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d writers wait, want %d", blocked, n)
			}
		}
	}
	return release, waiting
}

func TestARetryNeverDoublesAcrossTwoServersAndACrash(t *testing.T) {
	dir := dataDir(t)
	server, err := localpg.Start(t.Context(), dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop(context.WithoutCancel(t.Context())) })
	token, line, err := auth.NewToken("tester")
	if err != nil {
		t.Fatal(err)
	}
	tokens := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(tokens, []byte(line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a, b := newProcess(t, server.URL(), tokens), newProcess(t, server.URL(), tokens)
	must := func(p *process, method, path, body string, want int) string {
		t.Helper()
		status, text, err := p.send(t.Context(), method, path, token, body)
		if err != nil || status != want {
			t.Fatalf("%s %s: %d %s %v, want %d", method, path, status, text, err, want)
		}
		return text
	}
	file := func(n int) string {
		return fmt.Sprintf(`{"model_id":"org/m","num_prompts":%d,"completed":%d,"duration":2}`, n, n)
	}
	count := func() int {
		return strings.Count(must(b, "GET", "/v1/results?run=lab/twice", "", 200), `"importID"`)
	}
	must(a, "PUT", "/v1/runs/lab%2Ftwice", `{"model":"org/m"}`, 200)

	// The same file to both servers at once: one makes the import, one finds it.
	release, waiting := held(t, server.URL(), "lab/twice")
	statuses, texts := make([]int, 2), make([]string, 2)
	var sent sync.WaitGroup
	for n, p := range []*process{a, b} {
		sent.Go(func() {
			var err error
			if statuses[n], texts[n], err = p.send(t.Context(), "POST", "/v1/imports?run=lab/twice&file=c1.json", token, file(1)); err != nil {
				t.Error(err)
			}
		})
	}
	waiting(2)
	release()
	sent.Wait()
	if statuses[0]+statuses[1] != 201+200 || texts[0] != texts[1] {
		t.Errorf("answers %v %q", statuses, texts)
	}
	if n := count(); n != 1 {
		t.Errorf("%d results of one file", n)
	}

	// A server that is killed in the middle of an import leaves nothing of it, and
	// the retry at the other makes it once.
	release, waiting = held(t, server.URL(), "lab/twice")
	answered := make(chan error, 1)
	go func() {
		_, _, err := a.send(t.Context(), "POST", "/v1/imports?run=lab/twice&file=c2.json", token, file(2))
		answered <- err
	}()
	waiting(1)
	if err := a.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err == nil {
		t.Error("a killed server answered")
	}
	release()
	if n := count(); n != 1 {
		t.Errorf("%d results after the crash, want the one of before", n)
	}
	made := must(b, "POST", "/v1/imports?run=lab/twice&file=c2.json", file(2), 201)
	if again := must(b, "POST", "/v1/imports?run=lab/twice&file=c2.json", file(2), 200); again != made {
		t.Errorf("the retry is answered by %s, not by %s", again, made)
	}
	if n := count(); n != 2 {
		t.Errorf("%d results, want 2", n)
	}
	var exit *exec.ExitError
	if err := a.cmd.Wait(); !errors.As(err, &exit) {
		t.Errorf("the killed server ended with %v", err)
	}
}
