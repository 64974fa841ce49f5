// SPDX-License-Identifier: Apache-2.0

package deviceplugin

import (
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/spotbench/spotbench/pkg/version"
)

// Command is the command line of the simulated device plugin.
func Command() *cobra.Command {
	var cfg Config
	cmd := &cobra.Command{
		Use:   "gpu-device-plugin UUID...",
		Short: "Serve simulated GPUs over the kubelet's device plugin API",
		Long: `Serve simulated GPUs over the kubelet's device plugin API (v1beta1).

The GPUs exist in name only: pods get their UUIDs in NVIDIA_VISIBLE_DEVICES and
no device file. It runs on the nodes of the local cluster.`,
		Example:       "  gpu-device-plugin --lost /run/spotbench/lost-gpus GPU-3a6ba1c0-8c2a-4c4e-9d3f-6f1f2b0a7d11",
		Args:          cobra.MinimumNArgs(1),
		Version:       version.String(),
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg.UUIDs = args
			cfg.Logger = slog.New(slog.NewJSONHandler(os.Stderr, nil))
			return Run(cmd.Context(), cfg)
		},
	}
	cmd.Flags().StringVar(&cfg.Dir, "dir", "", "the kubelet's device plugin directory (default /var/lib/kubelet/device-plugins)")
	cmd.Flags().StringVar(&cfg.Resource, "resource", "nvidia.com/gpu", "the extended resource to serve")
	cmd.Flags().StringVar(&cfg.Listen, "listen", "", "address of /healthz, /readyz and /metrics, for example :9809; empty for none")
	cmd.Flags().StringVar(&cfg.LostFile, "lost", "", "a file that lists the UUIDs of lost GPUs, one a line; read again on every change")
	return cmd
}
