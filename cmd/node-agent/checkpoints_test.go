// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spotbench/spotbench/pkg/checkpoint"
)

const testRun = "gpu-workloads/qwen-1a2b3c4d"

// invoke runs the program with arguments.
func invoke(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := command()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

// threeGenerations makes a store whose third generation is damaged.
func threeGenerations(t *testing.T) (url string) {
	t.Helper()
	dir, files := t.TempDir(), t.TempDir()
	url = "file://" + dir
	s, err := checkpoint.Open(t.Context(), checkpoint.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, content := range []string{"one", "two", "three"} {
		if err := os.WriteFile(filepath.Join(files, "progress"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Save(t.Context(), testRun, files, checkpoint.SaveOptions{Meta: map[string]string{"node": "a100-spot-0", "notice": "aws-i-1"}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range glob(t, dir, testRun, "_chunks/*/*") {
		if data, _ := os.ReadFile(path); string(data) == "three" {
			if err := os.WriteFile(path, []byte("threx"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return url
}

func glob(t *testing.T, parts ...string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestCheckpointsAreListedVerifiedRestoredAndRemoved(t *testing.T) {
	url := threeGenerations(t)

	t.Run("list", func(t *testing.T) {
		for _, args := range [][]string{{"checkpoints", "list", "--store", url}, {"checkpoints", "list", testRun, "--store", url}} {
			out, err := invoke(t, args...)
			lines := strings.Split(strings.TrimSpace(out), "\n")
			if err != nil || len(lines) != 4 || !regexp.MustCompile(`^`+testRun+` +3 +\S+Z +a100-spot-0 +1 +5 B +aws-i-1 +good$`).MatchString(lines[1]) {
				t.Errorf("%v: %v\n%s", args, err, out)
			}
		}
		out, err := invoke(t, "checkpoints", "list", testRun, "--store", url, "-o", "json")
		var views []generationView
		if err != nil || json.Unmarshal([]byte(out), &views) != nil || len(views) != 3 || views[0].Generation != 3 || views[0].Node != "a100-spot-0" || views[0].State != "good" || views[0].Bytes != 5 {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("verify", func(t *testing.T) {
		out, err := invoke(t, "checkpoints", "verify", testRun, "--store", url)
		if err == nil || err.Error() != "1 of 3 checkpoints of "+testRun+" cannot be restored: 3" {
			t.Errorf("error %v", err)
		}
		if !strings.Contains(out, `damaged: checkpoint 3 of `+testRun+`: file "progress": damaged: object `) || strings.Count(out, " good\n") != 2 {
			t.Errorf("it says\n%s", out)
		}
		if out, err := invoke(t, "checkpoints", "verify", testRun, "--store", url, "--generation", "2", "-o", "json"); err != nil || !strings.Contains(out, `"state": "good"`) {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("restore", func(t *testing.T) {
		into := t.TempDir()
		out, err := invoke(t, "checkpoints", "restore", testRun, "--store", url, "--path", into)
		if err != nil || !strings.Contains(out, "checkpoint 3 is passed over") || !strings.Contains(out, "checkpoint 2 of "+testRun) {
			t.Errorf("%v\n%s", err, out)
		}
		if data, _ := os.ReadFile(filepath.Join(into, "progress")); string(data) != "two" {
			t.Errorf("restored %q", data)
		}
		out, err = invoke(t, "checkpoints", "restore", testRun, "--store", url, "--path", into, "--generation", "1", "-o", "json")
		var view restoredView
		if err != nil || json.Unmarshal([]byte(out), &view) != nil || view.Generation != 1 || view.Files != 1 || len(view.Damaged) != 0 {
			t.Errorf("%v\n%s", err, out)
		}
		if out, err := invoke(t, "restore", "--store", url, "--run", testRun, "--path", into); err != nil || !strings.Contains(out, `"generation":2`) {
			t.Errorf("as an init container: %v\n%s", err, out)
		}
	})
	t.Run("gc", func(t *testing.T) {
		out, err := invoke(t, "checkpoints", "gc", testRun, "--store", url, "--keep", "1", "--dry-run", "-o", "json")
		var views []prunedView
		if err != nil || json.Unmarshal([]byte(out), &views) != nil || len(views) != 1 || len(views[0].Generations) != 2 || !views[0].DryRun {
			t.Errorf("%v\n%s", err, out)
		}
		out, err = invoke(t, "checkpoints", "gc", "--all", "--store", url, "--keep", "1")
		if err != nil || !regexp.MustCompile(testRun+` +2,1 +0 +0 B\n`).MatchString(out) {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

func TestWhatIsWrongWithAnInspectionIsSaid(t *testing.T) {
	url := "file://" + t.TempDir()
	short := filepath.Join(t.TempDir(), "short")
	if err := os.WriteFile(short, []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"list"}, "--store is missing"},
		{[]string{"list", "--store", "ftp://x"}, "azblob://container"},
		{[]string{"list", "--store", url, "-o", "yaml"}, "use table or json"},
		{[]string{"list", "Not_A_Run", "--store", url}, `run "Not_A_Run" is not the key of a run`},
		{[]string{"list", "--store", url, "--encryption-key-file", short}, "openssl rand -hex 32"},
		{[]string{"verify", "--store", url}, "accepts 1 arg"},
		{[]string{"verify", "ns/none", "--store", url}, "run ns/none has no checkpoint"},
		{[]string{"verify", "ns/none", "--store", url, "--generation", "4"}, "has no checkpoint 4"},
		{[]string{"restore", "ns/none", "--store", url}, "--path is missing"},
		{[]string{"restore", "ns/none", "--store", url, "--path", t.TempDir()}, "has no checkpoint"},
		{[]string{"restore", "ns/none", "--store", url, "--path", "/does/not/exist"}, "/does/not/exist"},
		{[]string{"gc", "--store", url}, "--all"},
		{[]string{"gc", "ns/none", "--all", "--store", url}, "--all"},
		{[]string{"gc", "ns/none", "--store", url, "--keep", "0"}, "--keep 0"},
		{[]string{"gc", "ns/none", "--store", url, "--max-age", "-1h"}, "-1h0m0s"},
	} {
		if out, err := invoke(t, append([]string{"checkpoints"}, tt.args...)...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: error %v, want one that has %q\n%s", tt.args, err, tt.want, out)
		}
	}
}

func TestTheStoreCanComeFromTheEnvironment(t *testing.T) {
	t.Setenv("SPOTBENCH_STORE", threeGenerations(t))
	if out, err := invoke(t, "checkpoints", "list"); err != nil || strings.Count(out, "good") != 3 {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestSettingsOfTheStoreAreChecked(t *testing.T) {
	for _, tt := range []struct{ flag, value, want string }{
		{"--store", "ftp://x", "gs://"},
		{"--max-age", "-1s", "--max-age -1s"},
		{"--upload-limit", "fast", `--upload-limit "fast"`},
		{"--upload-limit", "10", "64Ki"},
	} {
		if _, err := invoke(t, "run", "--node", "n", tt.flag, tt.value); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %s: %v", tt.flag, tt.value, err)
		}
	}
}
