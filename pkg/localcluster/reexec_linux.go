// SPDX-License-Identifier: Apache-2.0

package localcluster

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spotbench/spotbench/pkg/deviceplugin"
	"github.com/spotbench/spotbench/pkg/localcluster/node"
)

// The device plugin of a node is this program under another name, as the node's
// init is (package machine): a cluster needs no program of ours installed.
func init() {
	if os.Args[0] != node.DevicePluginArgv0 {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	cmd := deviceplugin.Command()
	cmd.SetArgs(os.Args[1:])
	err := cmd.ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}
