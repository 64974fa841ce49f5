// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// buffer is written by the server and read by the test at the same time.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// execute runs a command to its end.
func execute(ctx context.Context, args ...string) (string, error) {
	var out bytes.Buffer
	cmd := command()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	err := cmd.ExecuteContext(ctx)
	return out.String(), err
}

// running starts the server with the arguments and returns its log and a function
// that stops it as SIGTERM would.
func running(t *testing.T, args ...string) (log *buffer, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	log = &buffer{}
	cmd := command()
	cmd.SetArgs(args)
	cmd.SetErr(log)
	ended := make(chan error, 1)
	go func() { ended <- cmd.ExecuteContext(ctx) }()
	stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { _ = stop() })
	for deadline := time.Now().Add(time.Minute); strings.Count(log.String(), `"listening"`) < 2; time.Sleep(20 * time.Millisecond) {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("it ended: %v\n%s", err, log)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("it does not listen:\n%s", log)
		}
	}
	return log, stop
}

// addresses are those the server says it listens on: with TLS, and without.
func addresses(t *testing.T, log *buffer) (withTLS, plain string) {
	t.Helper()
	for line := range strings.Lines(log.String()) {
		var record struct {
			Msg, Address string
			TLS          bool
		}
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatalf("no JSON: %s", line)
		}
		if record.Msg == "listening" && record.TLS {
			withTLS = record.Address
		} else if record.Msg == "listening" {
			plain = record.Address
		}
	}
	return withTLS, plain
}

func dataDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "catalog-api-") // short and open to the user PostgreSQL runs as, unlike TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestAFileImportedOverTLSIsOnThePageAndStillThereAfterARestart(t *testing.T) {
	dir := dataDir(t)
	out, err := execute(t.Context(), "token", "tester")
	if err != nil {
		t.Fatal(err)
	}
	first, second, _ := strings.Cut(out, "\n")
	token := first[strings.LastIndex(first, " ")+1:]
	tokens, result := filepath.Join(t.TempDir(), "tokens"), filepath.Join(t.TempDir(), "c4.json")
	for path, content := range map[string]string{
		tokens: strings.TrimSpace(strings.TrimPrefix(second, "line for the file:")) + "\n",
		result: `{"model_id":"org/imported","num_prompts":10,"completed":10,"duration":2,"max_concurrency":4}`,
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"--data-dir", dir, "--listen", "127.0.0.1:0", "--listen-read-only", "127.0.0.1:0", "--writer-tokens", tokens, "--log-level", "debug"}
	log, stop := running(t, append([]string{"serve"}, args...)...)
	withTLS, plain := addresses(t, log)
	t.Setenv("CATALOG_TOKEN", token)
	importArgs := []string{"import", "--server", "https://" + withTLS, "--ca", filepath.Join(dir, "tls", "ca.crt"), "--run", "lab/imported", "--model", "org/imported", result}
	for range 2 { // the second changes nothing
		if out, err := execute(t.Context(), importArgs...); err != nil || !strings.Contains(out, "1 results") {
			t.Fatal(out, err)
		}
	}
	if out, err := execute(t.Context(), "healthcheck", "--url", "http://"+plain+"/readyz"); err != nil {
		t.Error(out, err)
	}
	// The import made the run with the status succeeded.
	if out, err := execute(t.Context(), "await", "--server", "http://"+plain, "--run", "lab/imported", "--results", "1"); err != nil || out != "lab/imported: succeeded, 1 results\n" {
		t.Error(out, err)
	}
	for args, want := range map[string]string{
		"--run lab/imported --results 2 --timeout 100ms": "it is succeeded with 1 of 2 results",
		"--run lab/absent --results 1 --timeout 100ms":   "the catalog has no such run",
	} {
		if out, err := execute(t.Context(), append([]string{"await", "--server", "http://" + plain}, strings.Fields(args)...)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("await %s: %s %v, want an error with %q", args, out, err, want)
		}
	}
	if out, err := execute(t.Context(), "report", "--server", "http://"+plain, "--run", "lab/imported"); err != nil || !strings.Contains(out, "| c4.json | 10/10") || !strings.Contains(out, "Validity: ") {
		t.Error(out, err)
	}
	if page := get(t, "http://"+plain+"/"); !strings.Contains(page, "org/imported") {
		t.Error("the page does not list the run")
	}
	if page := get(t, "http://"+plain+"/runs/lab%2Fimported"); !strings.Contains(page, "org/imported") {
		t.Error("the run has no page")
	}
	if metrics := get(t, "http://"+plain+"/metrics"); !strings.Contains(metrics, `spotbench_catalog_imports_total{outcome="repeated"} 1`) {
		t.Error("the repeated import is not counted")
	}
	if err := stop(); err != nil {
		t.Errorf("it did not stop in order: %v", err)
	}
	if strings.Contains(log.String(), token) {
		t.Error("the log has the token")
	}
	log, _ = running(t, args...) // without a command it serves
	_, plain = addresses(t, log)
	if runs := get(t, "http://"+plain+"/v1/results?run=lab/imported"); strings.Count(runs, `"importID"`) != 1 {
		t.Errorf("after the restart: %s", runs)
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %s %v", url, resp.Status, body, err)
	}
	return string(body)
}

func TestWhatTheFlagsCannotMeanIsRefusedWithTheFlagsName(t *testing.T) {
	tests := map[string]struct {
		args []string
		want string
	}{
		"half a certificate":        {[]string{"--tls-cert", "x"}, "--tls-cert and --tls-key belong together"},
		"an address without a port": {[]string{"--listen", "8000"}, `--listen "8000" is no address`},
		"no address for writes":     {[]string{"--listen", ""}, `--listen "" is no address`},
		"no place for data":         {[]string{"--data-dir", ""}, "neither --database-url nor --data-dir"},
		"an unknown log level":      {[]string{"--log-level", "loud"}, `--log-level "loud" is unknown`},
		"a database URL that is none": {[]string{"--database-url", "postgres://u:hunter2@h:x/d"},
			"database URL"},
		"tokens of readers in plain HTTP": {[]string{"--read-access", "token"}, "--listen-read-only :8001"},
		"an unknown rule for reads":       {[]string{"--read-access", "some"}, `--read-access "some" is unknown`},
		"half an issuer":                  {[]string{"--oidc-issuer", "https://x"}, "--oidc-issuer and --oidc-client-id belong together"},
		"a limit below none":              {[]string{"--rate-limit", "-1"}, "--rate-limit is negative"},
		"namespaces of nobody":            {[]string{"--namespaces", "team-a"}, "is not USER=NAMESPACE"},
		"a namespace that cannot be":      {[]string{"--namespaces", "ada=Team A"}, "is no namespace"},
		"one connection":                  {[]string{"--database-connections", "1"}, "--database-connections must be at least 2"},
		"a key without a database":        {[]string{"keys", "list"}, "--database-url is empty"},
		"a migration without database":    {[]string{"migrate", "up"}, "--database-url is empty"},
		"a CA that is no certificate":     {[]string{"import", "--run", "a", "--ca", "main.go", "f"}, "--ca: authority of the catalog's certificate, main.go"},
		"a run without a namespace":       {[]string{"report", "--run", "nightly-7"}, `--run "nightly-7" is no key`},
		"no number of results":            {[]string{"await", "--run", "a/b"}, "--results 0"},
		"a certificate without a name":    {[]string{"certs", "--out", t.TempDir()}, "--dns"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			out, err := execute(t.Context(), tt.args...)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %s", err, tt.want)
			}
			if strings.Contains(out, "hunter2") || err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the password is told: %s %v", out, err)
			}
		})
	}
}

func TestHelpDoesNotTellThePasswordOfTheEnvironment(t *testing.T) {
	t.Setenv("DATABASE_URL", "postgres://catalog:hunter2@db.example/catalog")
	for _, args := range [][]string{{"--help"}, {"serve", "--help"}, {"migrate", "--help"}} {
		out, err := execute(t.Context(), args...)
		if err != nil || !strings.Contains(out, "--database-url") || strings.Contains(out, "hunter2") {
			t.Errorf("%v prints, with error %v:\n%s", args, err, out)
		}
	}
}
