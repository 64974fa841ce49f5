// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/spotbench/spotbench/pkg/localcluster"
	"github.com/spotbench/spotbench/pkg/localcluster/shape"
	"github.com/spotbench/spotbench/pkg/version"
)

func newCommand() *cobra.Command {
	var name string
	root := &cobra.Command{
		Use:   "localcluster",
		Short: "Run a real Kubernetes cluster on this machine, with simulated GPUs and spot notices",
		Long: `Run a real Kubernetes cluster on this machine: real etcd, control plane,
kubelets and containers, each node in namespaces of its own. GPUs, their driver
and the cloud's metadata service are simulated. It needs root on Linux.`,
		Version:       version.String(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentFlags().StringVar(&name, "name", localcluster.DefaultName, "name of the cluster; several can run beside each other")
	open := func(run func(cmd *cobra.Command, c *localcluster.Cluster, args []string) error) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, args []string) error {
			c, err := localcluster.Open(name)
			if err != nil {
				return fmt.Errorf("%w; start it with `localcluster up --name %s`", err, name)
			}
			return run(cmd, c, args)
		}
	}
	root.AddCommand(
		upCommand(&name), buildCommand(), shapeCommand(),
		&cobra.Command{
			Use: "down", Short: "Remove the cluster without a trace, also after a broken start", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return localcluster.Down(name, cmd.ErrOrStderr()) },
		},
		&cobra.Command{
			Use: "status", Short: "Show the nodes and what runs on them", Args: cobra.NoArgs,
			RunE: open(func(cmd *cobra.Command, c *localcluster.Cluster, _ []string) error { return printStatus(cmd, c) }),
		},
		&cobra.Command{
			Use: "kubeconfig", Short: "Print the path of the administrator's kubeconfig", Args: cobra.NoArgs,
			Example: `  export KUBECONFIG=$(localcluster kubeconfig)`,
			RunE: open(func(cmd *cobra.Command, c *localcluster.Cluster, _ []string) error {
				fmt.Fprintln(cmd.OutOrStdout(), c.Kubeconfig())
				return nil
			}),
		},
		noticeCommand(open), gpuCommand(open), loadCommand(open),
		nodeCommand(open, "rebalance", "Let the cloud recommend to leave the node", (*localcluster.Cluster).Rebalance),
		nodeCommand(open, "withdraw", "Take every announcement of the cloud about the node back", (*localcluster.Cluster).Withdraw),
		nodeCommand(open, "reclaim", "Take the machine away at once, as the cloud does", (*localcluster.Cluster).Reclaim),
		nodeCommand(open, "replace", "Start a new, empty machine for a node that was reclaimed", (*localcluster.Cluster).Replace),
		nodeCommand(open, "partition", "Cut the node off from the host and the other nodes", (*localcluster.Cluster).Partition),
		nodeCommand(open, "heal", "End a partition", (*localcluster.Cluster).Heal),
		&cobra.Command{
			Use: "exec NODE -- COMMAND...", Short: "Run a program on a node, outside of any pod", Args: cobra.MinimumNArgs(2),
			Example: "  localcluster exec a100-spot-0 -- ip route",
			RunE: open(func(cmd *cobra.Command, c *localcluster.Cluster, args []string) error {
				out, err := c.Exec(cmd.Context(), args[0], args[1:]...)
				if err != nil {
					return err
				}
				_, err = cmd.OutOrStdout().Write(out)
				return err
			}),
		},
		&cobra.Command{
			Use: "node-logs NODE [SERVICE]", Short: "Print the log of a node's service: kubelet (default), containerd, kube-proxy, metadata, gpu-device-plugin, init",
			Long: "Print the log of one of a node's services. The node control-plane has the services\netcd, kube-apiserver, kube-controller-manager, kube-scheduler, coredns, kwok and init.",
			Args: cobra.RangeArgs(1, 2),
			RunE: open(func(cmd *cobra.Command, c *localcluster.Cluster, args []string) error {
				log, err := c.Logs(args[0], append(args, "kubelet")[1])
				if err != nil {
					return err
				}
				defer log.Close()
				_, err = io.Copy(cmd.OutOrStdout(), log)
				return err
			}),
		},
	)
	return root
}

type opener func(func(*cobra.Command, *localcluster.Cluster, []string) error) func(*cobra.Command, []string) error

func upCommand(name *string) *cobra.Command {
	var o localcluster.Options
	var file string
	var kwok int
	cmd := &cobra.Command{
		Use: "up", Short: "Start the cluster and wait until all nodes are Ready", Args: cobra.NoArgs,
		Example: "  localcluster up\n  localcluster up --name big --kwok-nodes 1000\n  localcluster shape > my.yaml && localcluster up --shape my.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Name, o.Shape, o.Progress = *name, shape.Default(), cmd.ErrOrStderr()
			if file != "" {
				data, err := os.ReadFile(file)
				if err != nil {
					return fmt.Errorf("--shape: %w", err)
				}
				if o.Shape, err = shape.Parse(data); err != nil {
					return fmt.Errorf("--shape %s: %w", file, err)
				}
			}
			if cmd.Flags().Changed("kwok-nodes") {
				var err error
				if o.Shape, err = o.Shape.WithKwokNodes(kwok); err != nil {
					return fmt.Errorf("--kwok-nodes: %w", err)
				}
			}
			_, err := localcluster.Up(cmd.Context(), o)
			return err
		},
	}
	cmd.Flags().StringVar(&file, "shape", "", "YAML file that says which nodes there are (default: five nodes, see `localcluster shape`)")
	cmd.Flags().StringVar(&o.CacheDir, "cache", "", "directory that keeps built programs and images (default $XDG_CACHE_HOME/spotbench or ~/.cache/spotbench)")
	cmd.Flags().StringVar(&o.NVMLLibrary, "nvml-library", "", "simulated libnvidia-ml.so.1 to put on GPU nodes (default: none, nodes have no driver)")
	cmd.Flags().BoolVar(&o.NetworkPolicies, "network-policies", false, "enforce NetworkPolicies on every node, with kube-router (built the first time, minutes)")
	cmd.Flags().IntVar(&kwok, "kwok-nodes", 0, "number of simulated nodes, spread over the shape's kwok groups")
	return cmd
}

func buildCommand() *cobra.Command {
	var o localcluster.Options
	cmd := &cobra.Command{
		Use: "build", Short: "Only fetch and build what clusters are made of", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Progress = cmd.ErrOrStderr()
			return localcluster.Build(cmd.Context(), o)
		},
	}
	cmd.Flags().StringVar(&o.CacheDir, "cache", "", "directory that keeps built programs and images (default $XDG_CACHE_HOME/spotbench or ~/.cache/spotbench)")
	return cmd
}

func shapeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "shape", Short: "Print the default shape file, as a template", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(shape.DefaultFile())
			return err
		},
	}
}

func noticeCommand(open opener) *cobra.Command {
	var in time.Duration
	var action string
	cmd := &cobra.Command{
		Use: "notice NODE", Short: "Let the cloud announce that it takes the node's machine", Args: cobra.ExactArgs(1),
		Example: "  localcluster notice h100-spot-0 --in 120s",
		RunE: open(func(cmd *cobra.Command, c *localcluster.Cluster, args []string) error {
			deadline := time.Now().Add(in)
			if err := c.Notice(cmd.Context(), args[0], deadline, action); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s announced for %s\n", args[0], action, deadline.UTC().Format(time.RFC3339))
			return nil
		}),
	}
	cmd.Flags().DurationVar(&in, "in", 2*time.Minute, "time until the machine is taken")
	cmd.Flags().StringVar(&action, "action", "terminate", "what is announced: terminate, stop or hibernate")
	return cmd
}

func gpuCommand(open opener) *cobra.Command {
	var index int
	var back bool
	cmd := &cobra.Command{
		Use: "lose-gpu NODE", Short: "Lose one of the node's simulated GPUs, or bring it back", Args: cobra.ExactArgs(1),
		RunE: open(func(cmd *cobra.Command, c *localcluster.Cluster, args []string) error {
			return c.SetGPUHealth(cmd.Context(), args[0], index, back)
		}),
	}
	cmd.Flags().IntVar(&index, "index", 0, "which GPU, counted from 0")
	cmd.Flags().BoolVar(&back, "back", false, "bring it back")
	return cmd
}

func loadCommand(open opener) *cobra.Command {
	var nodes []string
	cmd := &cobra.Command{
		Use: "load-image TAR...", Short: "Import docker-archive tars into the nodes' container runtimes", Args: cobra.MinimumNArgs(1),
		RunE: open(func(cmd *cobra.Command, c *localcluster.Cluster, args []string) error {
			if len(nodes) > 0 {
				return c.LoadImagesTo(cmd.Context(), nodes, args...)
			}
			return c.LoadImages(cmd.Context(), args...)
		}),
	}
	cmd.Flags().StringSliceVar(&nodes, "node", nil, "only these nodes (default all)")
	return cmd
}

func printStatus(cmd *cobra.Command, c *localcluster.Cluster) error {
	nodes, err := c.Nodes(cmd.Context())
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "cluster %s, kubeconfig %s, host %s\n", c.Name(), c.Kubeconfig(), c.HostIP())
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tINSTANCE\tZONE\tCAPACITY\tGPUS\tADDRESS\tPID\tSERVICES")
	for _, n := range nodes {
		gpus, services := "-", []string{}
		if n.GPU != nil {
			gpus = fmt.Sprintf("%d x %s", n.GPU.Count, n.GPU.Model)
		}
		for _, s := range n.Services {
			switch {
			case s.PID == 0:
				services = append(services, s.Name+" down: "+s.LastExit)
			case s.Restarts > 0:
				services = append(services, fmt.Sprintf("%s (%d restarts)", s.Name, s.Restarts))
			default:
				services = append(services, s.Name)
			}
		}
		if n.PID == 0 {
			services = []string{"machine is gone"}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", n.Name, n.InstanceType, n.Zone, n.CapacityType, gpus, n.IP, n.PID, strings.Join(services, ", "))
	}
	return w.Flush()
}
