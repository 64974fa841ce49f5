// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spotbench/spotbench/pkg/catalog"
)

func TestTheDocumentationHasEveryRule(t *testing.T) {
	text, err := os.ReadFile("../../docs/catalog.md")
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	for _, r := range catalog.Rules() {
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s |\n", r.Code, r.Verdict, r.When, r.Suggestion)
	}
	if !strings.Contains(string(text), table.String()) {
		t.Errorf("docs/catalog.md lacks the table of the rules as they are:\n%s", table.String())
	}
}
