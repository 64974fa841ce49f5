// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
