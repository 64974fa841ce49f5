// SPDX-License-Identifier: Apache-2.0

// Command gpu-device-plugin serves simulated GPUs to a kubelet.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spotbench/spotbench/pkg/deviceplugin"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := deviceplugin.Command().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "gpu-device-plugin:", err)
		os.Exit(1)
	}
}
