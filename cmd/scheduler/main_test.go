// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"testing"
)

// run gives the command arguments and returns what it printed.
func run(args ...string) (string, error) {
	var out bytes.Buffer
	cmd := command()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	err := cmd.Execute()
	// kube-scheduler's commands share this flag, and with it that it was given.
	cmd.Flags().Lookup("version").Changed = false
	return out.String(), err
}

func TestVersionIsOurs(t *testing.T) {
	out, err := run("--version")
	if err != nil || !strings.HasPrefix(out, "scheduler ") || strings.Contains(out, "Kubernetes v") {
		t.Errorf("output %q, error %v", out, err)
	}
}

func TestWithoutConfigItDoesNotBecomeTheDefaultScheduler(t *testing.T) {
	_, err := run()
	if err == nil || !strings.Contains(err.Error(), "flag --config is missing") {
		t.Errorf("error %v", err)
	}
}

func TestHelpNamesThePluginAndTheEndpoints(t *testing.T) {
	out, err := run("--help")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"SpotbenchPlacement", "spotbench.dev/placement", "/healthz", "/readyz", "/metrics", "--config"} {
		if !strings.Contains(out, part) {
			t.Errorf("help does not mention %s", part)
		}
	}
}
