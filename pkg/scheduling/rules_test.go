// SPDX-License-Identifier: Apache-2.0

package scheduling_test

import (
	"os/exec"
	"testing"

	"github.com/spotbench/spotbench/pkg/debian"
)

// promtool is Prometheus' own, of Debian's package, which is installed when it is
// missing.
func promtool(t *testing.T) string {
	t.Helper()
	missing := func() []string {
		if _, err := exec.LookPath("promtool"); err != nil {
			return []string{"prometheus"}
		}
		return nil
	}
	if err := debian.Install(t.Context(), missing, func(packages []string) { t.Logf("installing Debian packages: %v", packages) }); err != nil {
		t.Skip("the alert rules are not checked: ", err)
	}
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAlertRulesAreWellFormedAndPassTheirOwnTests(t *testing.T) {
	const dir = "../../manifests/components/monitoring"
	for _, args := range [][]string{
		{"check", "rules", "scheduler.rules.yaml"},
		{"test", "rules", "scheduler.rules_test.yaml"},
	} {
		cmd := exec.CommandContext(t.Context(), promtool(t), args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}
