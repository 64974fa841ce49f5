// SPDX-License-Identifier: Apache-2.0

// Command scheduler is kube-scheduler with Spotbench's plugin. It places the pods
// that name its profile in spec.schedulerName, and touches no other.
package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/component-base/cli"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/cli/globalflag"
	basecompatibility "k8s.io/component-base/compatibility"
	"k8s.io/component-base/featuregate"
	"k8s.io/component-base/logs"
	logsapi "k8s.io/component-base/logs/api/v1"
	_ "k8s.io/component-base/logs/json/register" // the JSON log format
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	"k8s.io/component-base/term"
	"k8s.io/kubernetes/cmd/kube-scheduler/app"
	"k8s.io/kubernetes/cmd/kube-scheduler/app/options"

	"github.com/spotbench/spotbench/pkg/placement/snapshot"
	"github.com/spotbench/spotbench/pkg/scheduling"
	"github.com/spotbench/spotbench/pkg/version"
)

// unwoken is after how long a pod is tried again that nothing woke. It is a net under
// the hints; with kube-scheduler's own 5m, tens of thousands of pods that wait keep the
// queue busy for nothing, and a new pod waits behind them. The flag
// --pod-max-in-unschedulable-pods-duration overrides it.
const unwoken = 30 * time.Minute

func main() {
	os.Exit(cli.Run(command()))
}

// command has kube-scheduler's flags, with our plugins, our version, JSON logs, the
// snapshot's port and no way to become the cluster's default scheduler by accident.
func command() *cobra.Command {
	opts := options.NewOptions()
	var printVersion bool
	var snapshotAddress string
	cmd := &cobra.Command{
		Use:   "scheduler",
		Short: "Place benchmark pods on spot GPUs by expected cost of finishing",
		Long: `The Spotbench scheduler is kube-scheduler with the plugin ` + scheduling.Name + `: it refuses
nodes by GPU model, nominal memory, capacity type, interruption notice, risk and
deadline, each with its reason in the pod's event, ranks the others by the expected
cost of finishing, and writes its decision to the pod's annotation
spotbench.dev/placement.

It serves the profiles of --config and only those: pods with another
spec.schedulerName are left alone. Health, readiness and metrics are on the secure
port: https://HOST:10259/healthz, /readyz, /metrics. What it decides from is at
--snapshot-address: https://127.0.0.1:10261` + snapshot.Path + `, for users who
may get this path; kubectl spotbench explain reads it.`,
		Args: cobra.NoArgs,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			return opts.ComponentGlobalsRegistry.Set()
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if printVersion {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), "scheduler "+version.String())
				return err
			}
			if opts.ConfigFile == "" {
				return errors.New("flag --config is missing: without it kube-scheduler's default profile would take over every pod; " +
					"give it a KubeSchedulerConfiguration such as manifests/base/scheduler/config.yaml")
			}
			return run(cmd, opts, snapshotAddress)
		},
	}
	sections := *opts.Flags
	global := sections.FlagSet("global")
	globalflag.AddGlobalFlags(global, cmd.Name(), logs.SkipLoggingConfigurationFlags())
	global.BoolVar(&printVersion, "version", false, "Print the version and exit.")
	sections.FlagSet("secure serving").StringVar(&snapshotAddress, "snapshot-address", "127.0.0.1:10261",
		"The IP address and port to serve "+snapshot.Path+" at, with the certificate of the secure port and for the same kinds of users; empty for nowhere. "+
			"A loopback address is for those who may forward a port to the pod.")
	for _, set := range sections.FlagSets {
		cmd.Flags().AddFlagSet(set)
	}
	columns, _, _ := term.TerminalSize(cmd.OutOrStdout())
	cliflag.SetUsageAndHelpFunc(cmd, sections, columns)
	for flag, value := range map[string]string{"logging-format": "json", "pod-max-in-unschedulable-pods-duration": unwoken.String()} {
		if f := cmd.Flags().Lookup(flag); f != nil {
			f.DefValue = value
			if err := f.Value.Set(value); err != nil {
				panic(err) // only if the JSON format's registration above goes missing
			}
		}
	}
	return cmd
}

// run schedules until the process is told to end.
func run(cmd *cobra.Command, opts *options.Options, snapshotAddress string) error {
	features := opts.ComponentGlobalsRegistry.FeatureGateFor(basecompatibility.DefaultKubeComponent)
	if err := logsapi.ValidateAndApply(opts.Logs, features); err != nil {
		return err
	}
	cliflag.PrintFlags(cmd.Flags())
	ctx := genericapiserver.SetupSignalContext()
	snapshots := &scheduling.Snapshots{}
	config, scheduler, err := app.Setup(ctx, opts,
		app.WithPlugin(scheduling.Name, snapshots.New),
		app.WithPlugin(scheduling.ResourcesName, scheduling.NewResources),
		app.WithPlugin(scheduling.GangsName, scheduling.NewGangs),
	)
	if err != nil {
		return err
	}
	if gate, ok := features.(featuregate.MutableFeatureGate); ok {
		gate.AddMetrics()
	}
	opts.ComponentGlobalsRegistry.AddMetrics()
	snapshots.Follow(scheduler)
	if snapshotAddress != "" && config.SecureServing != nil {
		if err := serveSnapshots(ctx, config, snapshots, snapshotAddress); err != nil {
			return err
		}
	}
	return app.Run(ctx, config, scheduler)
}
