// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/postgres"
)

// filed are the IDs of the results that a query finds.
func filed(t *testing.T, s *postgres.Store, query catalog.ResultQuery) []string {
	t.Helper()
	page, err := s.ListResults(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, r := range page.Items {
		ids = append(ids, r.ID)
	}
	return ids
}

func importPoint(t *testing.T, s *postgres.Store, run, file, format, content string) string {
	t.Helper()
	i, _, err := s.Import(t.Context(), run, file, format, []byte(content), []catalog.Result{{Model: "org/m", Requests: 200, Completed: 200, Concurrency: ptr[int64](8)}})
	if err != nil {
		t.Fatal(err)
	}
	return i.Results[0]
}

// TestFiltersOfResultsFollowTheirRun: what a result is filtered by is kept with it,
// and yet it changes when the run does, and is there after the schema came from an
// older one.
func TestFiltersOfResultsFollowTheirRun(t *testing.T) {
	s := newStore(t)
	put(t, s, "ns/a", catalog.Run{Status: catalog.Running, GPUModel: "A100-80GB"})
	replaced := importPoint(t, s, "ns/a", "c8.json", "vllm", "first")
	id := importPoint(t, s, "ns/a", "c8.json", "vllm", "second")
	other := importPoint(t, s, "ns/a", "other.json", "guidellm", "third")
	check := func(when string, query catalog.ResultQuery, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, filed(t, s, query)); diff != "" {
			t.Errorf("%s: %+v (-want +got)\n%s", when, query, diff)
		}
	}
	check("while it runs", catalog.ResultQuery{Verdict: catalog.Pending}, other, id)
	check("while it runs", catalog.ResultQuery{GPUModel: "A100-80GB"}, other, id)
	put(t, s, "ns/a", catalog.Run{Status: catalog.Succeeded, GPUModel: "H100-80GB"})
	for n, when := range []string{"after it succeeded", "after the schema came from an older one"} {
		if n == 1 {
			downAndUp(t, s, 3)
		}
		check(when, catalog.ResultQuery{Verdict: catalog.Valid, GPUModel: "H100-80GB"}, other, id)
		check(when, catalog.ResultQuery{Verdict: catalog.Pending})
		check(when, catalog.ResultQuery{GPUModel: "A100-80GB"})
		check(when, catalog.ResultQuery{Format: "guidellm", Concurrency: ptr[int64](8)}, other)
		check(when, catalog.ResultQuery{Format: "vllm", Model: "org/m"}, id)
		models, err := s.ListModels(t.Context())
		if err != nil || len(models) != 0 {
			t.Errorf("%s: models %+v, %v; the run names none", when, models, err)
		}
	}
	put(t, s, "ns/a", catalog.Run{Model: "org/m"})
	if models, err := s.ListModels(t.Context()); err != nil || len(models) != 1 || models[0].Results != 2 || models[0].Runs != 1 {
		t.Errorf("models %+v, %v; want one with two results", models, err)
	}
	for _, known := range []string{replaced, id} {
		if body, err := s.ResultJSON(t.Context(), known); err != nil || !bytes.Contains(body, []byte(known)) {
			t.Errorf("result %s: %s, %v", known, body, err)
		}
	}
	for _, unknown := range []string{"no id", "7a1d2f7c-6f0e-5b7e-9a55-5d5c3d0f4c11"} {
		if _, err := s.ResultJSON(t.Context(), unknown); !errors.Is(err, catalog.ErrNotFound) {
			t.Errorf("result %s: %v", unknown, err)
		}
	}
}

func TestTheFileOfAnImportIsKeptAsItCame(t *testing.T) {
	s := newStore(t)
	put(t, s, "ns/a", catalog.Run{})
	for n, content := range [][]byte{{}, []byte("{}"), bytes.Repeat([]byte("lines of a file\n"), 100_000)} {
		name := fmt.Sprintf("f%d.json", n)
		i, _, err := s.Import(t.Context(), "ns/a", name, "vllm", content, nil)
		if err != nil {
			t.Fatal(err)
		}
		if file, got, err := s.File(t.Context(), i.ID); err != nil || file != name || !bytes.Equal(got, content) {
			t.Errorf("file %d: %q, %d bytes of %d, %v", n, file, len(got), len(content), err)
		}
	}
	if _, _, err := s.File(t.Context(), "7a1d2f7c-6f0e-5b7e-9a55-5d5c3d0f4c11"); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("a file that is not there: %v", err)
	}
}
