// SPDX-License-Identifier: Apache-2.0

// Package platform_test installs the platform on a local cluster and holds it to
// what it promises, seen from outside: through kubectl, HTTP and the API server.
package platform_test

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/spotbench/spotbench/pkg/demo"
	"github.com/spotbench/spotbench/pkg/localcluster"
)

// stage is the installed platform that all tests of this package share, until
// stageContext ends.
var (
	stage        *demo.Stage
	stageContext context.Context
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if err := localcluster.Check(); err != nil {
		fmt.Println("SKIP: the end-to-end tests need the local cluster:", err)
		return 0
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	stageContext = ctx
	var err error
	stage, err = demo.Prepare(ctx, demo.Options{Cluster: "e2e", Root: "../..", Output: os.Stdout,
		DataDir: os.Getenv("SPOTBENCH_DATA"), Notice: demo.DefaultNotice})
	if stage != nil {
		defer func() {
			if err := stage.Down(context.WithoutCancel(ctx)); err != nil {
				fmt.Println("remove the cluster:", err)
			}
		}()
	}
	if err != nil {
		fmt.Println("FAIL: install the platform:", err)
		return 1
	}
	return m.Run()
}

// eventually polls until the condition holds, and fails the test after the timeout.
func eventually(t *testing.T, timeout time.Duration, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(timeout); ; time.Sleep(200 * time.Millisecond) {
		if holds() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s", timeout, what)
		}
	}
}

// cleanupContext outlives the test's own context, which ends before its cleanups run.
func cleanupContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}
