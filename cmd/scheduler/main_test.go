// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"testing"
)

// execute gives the command arguments and returns what it printed.
func execute(args ...string) (string, error) {
	var out bytes.Buffer
	cmd := command()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	err := cmd.Execute()
	return out.String(), err
}

func TestVersionIsOurs(t *testing.T) {
	out, err := execute("--version")
	if err != nil || !strings.HasPrefix(out, "scheduler ") || strings.Contains(out, "Kubernetes v") {
		t.Errorf("output %q, error %v", out, err)
	}
}

func TestWithoutConfigItDoesNotBecomeTheDefaultScheduler(t *testing.T) {
	_, err := execute()
	if err == nil || !strings.Contains(err.Error(), "flag --config is missing") {
		t.Errorf("error %v", err)
	}
}

func TestHelpNamesThePluginAndTheEndpoints(t *testing.T) {
	out, err := execute("--help")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"SpotbenchPlacement", "spotbench.dev/placement", "/healthz", "/readyz", "/metrics", "--config", "/debug/spotbench/snapshot", "--snapshot-address"} {
		if !strings.Contains(out, part) {
			t.Errorf("help does not mention %s", part)
		}
	}
}

func TestPodsThatNothingWokeAreTriedAgainAfterHalfAnHour(t *testing.T) {
	flag := command().Flags().Lookup("pod-max-in-unschedulable-pods-duration")
	if flag == nil || flag.Value.String() != "30m0s" || flag.DefValue != "30m0s" {
		t.Errorf("flag %+v, want 30m0s", flag)
	}
}
