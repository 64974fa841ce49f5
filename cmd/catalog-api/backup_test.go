// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/localpg"
	"github.com/spotbench/spotbench/pkg/catalog/postgres"
)

func TestABackupComesBackWholeAndADamagedOneChangesNothing(t *testing.T) {
	server, err := localpg.Start(t.Context(), dataDir(t), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop(context.WithoutCancel(t.Context())) })
	store, err := postgres.Open(t.Context(), postgres.Options{URL: server.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if _, err := store.MigrateUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	put := func(key string) {
		t.Helper()
		if _, _, err := store.PutRun(t.Context(), key, catalog.Run{Model: "m"}, 0); err != nil {
			t.Fatal(err)
		}
	}
	put("ns/kept")
	imported, _, err := store.Import(t.Context(), "ns/kept", "f.json", "vllm", []byte("content"), []catalog.Result{{Model: "m", Requests: 1}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dataDir(t), "catalog.backup")
	if out, err := execute(t.Context(), "backup", file, "--database-url", server.URL()); err != nil || !strings.Contains(out, file) {
		t.Fatal(out, err)
	}
	put("ns/later")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	damaged := file + ".damaged"
	if err := os.WriteFile(damaged, text[:len(text)*3/4], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := execute(t.Context(), "restore", damaged, "--database-url", server.URL()); err == nil {
		t.Error("a damaged backup was taken")
	}
	if _, err := store.GetRun(t.Context(), "ns/later"); err != nil {
		t.Errorf("after a damaged backup: %v", err)
	}
	// An empty database, as after a loss.
	conn, err := pgx.Connect(t.Context(), server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), "CREATE DATABASE again"); err != nil {
		t.Fatal(err)
	}
	for name, url := range map[string]string{"in place": server.URL(), "into another": strings.Replace(server.URL(), "/catalog?", "/again?", 1)} {
		if out, err := execute(t.Context(), "restore", file, "--database-url", url); err != nil {
			t.Fatal(name, out, err)
		}
		restored, err := postgres.Open(t.Context(), postgres.Options{URL: url})
		if err != nil {
			t.Fatal(err)
		}
		run, err := restored.GetRun(t.Context(), "ns/kept")
		if err != nil || len(run.Results) != 1 {
			t.Errorf("%s: %+v, %v", name, run, err)
		}
		if _, content, err := restored.File(t.Context(), imported.ID); err != nil || string(content) != "content" {
			t.Errorf("%s: file %q, %v", name, content, err)
		}
		if _, err := restored.GetRun(t.Context(), "ns/later"); err == nil {
			t.Errorf("%s: a run from after the backup is there", name)
		}
		restored.Close()
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := execute(t.Context(), "backup", file, "--database-url", "postgres://nobody@/none?host=/none"); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a backup of nothing: %v", err)
	}
	if left, err := filepath.Glob(file + "*"); err != nil || len(left) != 1 { // the damaged one
		t.Errorf("a failed backup left %v, %v", left, err)
	}
}

// TestABackupOfAnOlderSchemaComesBackInPlaceAndRevokedKeysStayRevoked restores into the
// catalog's own PostgreSQL, which does not run then.
func TestABackupOfAnOlderSchemaComesBackInPlaceAndRevokedKeysStayRevoked(t *testing.T) {
	dir := dataDir(t)
	var server *localpg.Server
	open := func() *postgres.Store {
		t.Helper()
		var err error
		if server, err = localpg.Start(t.Context(), dir, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		store, err := postgres.Open(t.Context(), postgres.Options{URL: server.URL()})
		if err != nil {
			t.Fatal(err)
		}
		return store
	}
	end := func(store *postgres.Store) {
		t.Helper()
		store.Close()
		if err := server.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	store := open()
	defer func() { end(store) }()
	_, err := store.MigrateUp(t.Context())
	must(err)
	must(store.MigrateDown(t.Context()))
	_, _, err = store.PutRun(t.Context(), "ns/older", catalog.Run{Model: "m"}, 0)
	must(err)
	older, newer := filepath.Join(dir, "older.backup"), filepath.Join(dir, "newer.backup")
	_, err = execute(t.Context(), "backup", older, "--database-url", server.URL())
	must(err)
	_, err = store.MigrateUp(t.Context())
	must(err)
	for _, id := range []string{"kept", "leaked"} {
		_, err = store.CreateKey(t.Context(), catalog.APIKey{ID: id, Role: catalog.Writer, ExpiresAt: time.Now().Add(time.Hour)}, []byte("hash"))
		must(err)
	}
	_, err = execute(t.Context(), "backup", newer, "--database-url", server.URL())
	must(err)
	must(store.RevokeKey(t.Context(), "leaked"))
	if _, err := execute(t.Context(), "restore", newer, "--data-dir", dir); err == nil || !strings.Contains(err.Error(), "already runs") {
		t.Errorf("a restore under a catalog that runs: %v", err)
	}
	for _, tt := range []struct {
		file string
		keys map[string]catalog.Role
	}{
		{newer, map[string]catalog.Role{"kept": catalog.Writer, "leaked": ""}},
		{older, map[string]catalog.Role{"kept": "", "leaked": ""}},
	} {
		end(store)
		if out, err := execute(t.Context(), "restore", tt.file, "--data-dir", dir); err != nil {
			t.Error(tt.file, out, err)
		}
		store = open()
		must(store.Ping(t.Context()))
		_, err := store.GetRun(t.Context(), "ns/older")
		must(err)
		for id, want := range tt.keys {
			if role, _, err := store.CheckKey(t.Context(), id, []byte("hash")); role != want || err != nil {
				t.Errorf("%s: key %s has role %q, %v; want %q", tt.file, id, role, err, want)
			}
		}
	}
}

func TestNoPasswordIsAmongAProgramsArguments(t *testing.T) {
	for _, url := range []string{"postgres://u:hunter2@/d?host=/none", "host=/none user=u dbname=d password=hunter2"} {
		program, err := onDatabase(t.Context(), url, "pg_dump")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(strings.Join(program.Args, " "), "hunter2") || !slices.Contains(program.Env, "PGPASSWORD=hunter2") {
			t.Errorf("arguments %q", program.Args)
		}
	}
}
