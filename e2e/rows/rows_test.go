// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEveryProofIsATestThatExists(t *testing.T) {
	for _, r := range rows {
		if len(r.proofs) == 0 {
			t.Errorf("nothing proves %s", r.part)
		}
		for _, p := range r.proofs {
			files, err := filepath.Glob("../../" + p.pkg + "/*_test.go")
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, file := range files {
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				found = found || strings.Contains(string(text), "func "+p.test+"(t *testing.T)")
			}
			if !found {
				t.Errorf("%s: %s has no %s", r.part, p.pkg, p.test)
			}
		}
	}
}

func TestTheResultsAreThoseOfTestsNotOfTheirParts(t *testing.T) {
	const events = `{"Action":"run","Test":"TestA"}
{"Action":"output","Test":"TestA","Output":"a says\n"}
{"Action":"fail","Test":"TestA/part"}
{"Action":"fail","Test":"TestA"}
no JSON, as when a package does not compile
{"Action":"skip","Test":"TestB"}
{"Action":"pass","Test":"TestC"}
{"Action":"pass"}
`
	var shown strings.Builder
	got, err := read(strings.NewReader(events), &shown)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"TestA": "fail", "TestB": "skip", "TestC": "pass"}, got); diff != "" {
		t.Errorf("results (-want +got):\n%s", diff)
	}
	if want := "a says\nno JSON, as when a package does not compile\n"; shown.String() != want {
		t.Errorf("shown %q, want %q", shown.String(), want)
	}
}

func TestARowPassesWhenEveryProofRanAndPassed(t *testing.T) {
	table := []row{{part: "Part", proofs: []proof{{"a", "TestA", ran}, {"b", "TestB", applied}}, lacks: "the rest"}}
	for name, c := range map[string]struct {
		results map[proof]string
		want    string
	}{
		"both passed":                  {map[proof]string{{pkg: "a", test: "TestA"}: "pass", {pkg: "b", test: "TestB"}: "pass"}, "Part pass applied: b the rest | ran: a"},
		"one failed":                   {map[proof]string{{pkg: "a", test: "TestA"}: "fail", {pkg: "b", test: "TestB"}: "pass"}, "Part FAIL TestA failed the rest"},
		"one was skipped":              {map[proof]string{{pkg: "a", test: "TestA"}: "pass", {pkg: "b", test: "TestB"}: "skip"}, "Part FAIL TestB was skipped the rest"},
		"a test of that name is gone":  {map[proof]string{{pkg: "a", test: "TestA"}: "pass"}, "Part FAIL TestB did not run the rest"},
		"it passed in another package": {map[proof]string{{pkg: "a", test: "TestA"}: "pass", {pkg: "a", test: "TestB"}: "pass"}, "Part FAIL TestB did not run the rest"},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			err := draw(&out, judge(table, c.results))
			if failed := strings.Contains(c.want, "FAIL"); (err != nil) != failed {
				t.Errorf("error %v, want one: %v", err, failed)
			}
			_, text, _ := strings.Cut(strings.TrimSpace(out.String()), "\n")
			var lines []string
			for line := range strings.Lines(text) {
				lines = append(lines, strings.Join(strings.Fields(line), " "))
			}
			if got := strings.Join(lines, " | "); got != c.want {
				t.Errorf("the table says %q, want %q", got, c.want)
			}
		})
	}
}

func TestEachPackageRunsOnceWithAllItsTests(t *testing.T) {
	got := byPackage([]row{
		{part: "One", proofs: []proof{{"a", "TestA", ran}, {"b", "TestB", ran}}},
		{part: "Two", proofs: []proof{{"a", "TestA", ran}, {"a", "TestC", ran}}},
	})
	if diff := cmp.Diff(map[string][]string{"a": {"TestA", "TestC"}, "b": {"TestB"}}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
