// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package complete_test installs the whole platform (manifests/overlays/local) on a local
// cluster that enforces network policies, and shows that its parts do their work: it
// takes a quarter of an hour, so that it runs in `make e2e-platform` only.
package complete_test

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/spotbench/spotbench/pkg/demo"
	"github.com/spotbench/spotbench/pkg/localcluster"
)

// root is the source tree.
const root = "../.."

// switchedOn is the environment variable that asks for these tests.
const switchedOn = "SPOTBENCH_COMPLETE"

// stage is the installed platform that all tests of this package share.
var stage *demo.Stage

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Getenv(switchedOn) == "" {
		fmt.Printf("SKIP: the whole platform on real nodes takes a quarter of an hour; `make e2e-platform` runs it (%s=1)\n", switchedOn)
		return 0
	}
	if err := localcluster.Check(); err != nil {
		fmt.Println("SKIP: the end-to-end tests need the local cluster:", err)
		return 0
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	stage, err = demo.Prepare(ctx, demo.Options{Cluster: "e2e-complete", Root: root, Output: os.Stdout, Complete: true, Notice: demo.DefaultNotice})
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
func eventually(t *testing.T, timeout time.Duration, what string, holds func() error) {
	t.Helper()
	start := time.Now()
	for {
		err := holds()
		if err == nil {
			t.Logf("%s, after %s", what, time.Since(start).Round(100*time.Millisecond))
			return
		}
		if time.Since(start) > timeout {
			t.Fatalf("waited %s until %s: %v", timeout, what, err)
		}
		time.Sleep(250 * time.Millisecond)
	}
}

// kubectl runs kubectl and returns what it printed.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := stage.Kubectl.Run(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// cleanupContext outlives the test's own context, which ends before its cleanups run.
func cleanupContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// overlay applies a kustomization that a test makes: the whole platform, changed. Files
// are written beside its kustomization.yaml, whose paths are relative to ROOT.
func overlay(t *testing.T, kustomization string, files map[string]string) {
	t.Helper()
	dir := t.TempDir()
	absolute, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	// Kustomize takes directories by relative paths only.
	relative, err := filepath.Rel(dir, absolute)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{"kustomization.yaml": strings.ReplaceAll(kustomization, "ROOT", relative)}
	for name, text := range files {
		all[name] = text
	}
	for name, text := range all {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := stage.Kubectl.ApplyKustomization(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
}

func podsOf(t *testing.T, namespace, selector string) []corev1.Pod {
	t.Helper()
	list, err := stage.Client.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
