// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestFindingsAreALineEachAndAnError(t *testing.T) {
	var out bytes.Buffer
	// outer includes bad, so what is wrong in it is rendered twice and said once.
	err := lint(t.Context(), &out, "../../pkg/manifest/testdata", nil)
	if !errors.Is(err, errFindings) {
		t.Errorf("got %v, want %v", err, errFindings)
	}
	for _, once := range []string{"a:latest changes under the same name", "'selektor' not allowed", "no schema is known for example.com/v1/Unknown"} {
		if n := strings.Count(out.String(), once); n != 1 {
			t.Errorf("%q is said %d times:\n%s", once, n, out.String())
		}
	}
	if !strings.Contains(out.String(), "2 kustomizations, 13 objects (7 different), 6 findings") {
		t.Errorf("no count at the end:\n%s", out.String())
	}
}

func TestADirectoryWithoutKustomizationsIsAnError(t *testing.T) {
	if err := lint(t.Context(), new(bytes.Buffer), t.TempDir(), nil); err == nil || !strings.Contains(err.Error(), "no kustomization.yaml") {
		t.Errorf("got %v", err)
	}
}
