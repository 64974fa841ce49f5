// SPDX-License-Identifier: Apache-2.0

// Command scheduler is kube-scheduler with Spotbench's plugin. It places the pods
// that name its profile in spec.schedulerName, and touches no other.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register" // the JSON log format
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	"k8s.io/kubernetes/cmd/kube-scheduler/app"

	"github.com/spotbench/spotbench/pkg/scheduling"
	"github.com/spotbench/spotbench/pkg/version"
)

// garbage is how much, in percent of what is in use, may gather before it is
// collected. Decisions cost little time and leave a lot of it; Go's own 100 would make
// the process a third larger. The variable GOGC overrides it.
const garbage = 50

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbage)
	}
	os.Exit(cli.Run(command()))
}

// command is kube-scheduler's command with our plugins, our version, JSON logs and
// no way to become the cluster's default scheduler by accident.
func command() *cobra.Command {
	cmd := app.NewSchedulerCommand(
		app.WithPlugin(scheduling.Name, scheduling.New),
		app.WithPlugin(scheduling.GangsName, scheduling.NewGangs),
	)
	cmd.Use = "scheduler"
	cmd.Short = "Place benchmark pods on spot GPUs by expected cost of finishing"
	cmd.Long = `The Spotbench scheduler is kube-scheduler with the plugin ` + scheduling.Name + `: it refuses
nodes by GPU model, nominal memory, capacity type, interruption notice, risk and
deadline, each with its reason in the pod's event, ranks the others by the expected
cost of finishing, and writes its decision to the pod's annotation
spotbench.dev/placement.

It serves the profiles of --config and only those: pods with another
spec.schedulerName are left alone. Health, readiness and metrics are on the secure
port: https://HOST:10259/healthz, /readyz, /metrics.`

	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if f := cmd.Flags().Lookup("version"); f != nil && f.Changed {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "scheduler "+version.String())
			return err
		}
		if f := cmd.Flags().Lookup("config"); f == nil || f.Value.String() == "" {
			return errors.New("flag --config is missing: without it kube-scheduler's default profile would take over every pod; " +
				"give it a KubeSchedulerConfiguration such as manifests/base/scheduler/config.yaml")
		}
		return run(cmd, args)
	}
	if f := cmd.Flags().Lookup("logging-format"); f != nil {
		f.DefValue = "json"
		if err := f.Value.Set("json"); err != nil {
			panic(err) // only if the format's registration above goes missing
		}
	}
	return cmd
}
