// SPDX-License-Identifier: Apache-2.0

//go:build linux

package localcluster_test

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"golang.org/x/sync/errgroup"

	"github.com/spotbench/spotbench/pkg/localcluster"
)

func TestDownLeavesNothingAfterAStartThatWasKilledAtAnyTime(t *testing.T) {
	needCluster(t)
	const name = "e2e-crash"
	t.Cleanup(func() {
		if err := localcluster.Down(name, io.Discard); err != nil {
			t.Error(err)
		}
	})
	dir := t.TempDir()
	program, shapeFile := filepath.Join(dir, "localcluster"), filepath.Join(dir, "shape.yaml")
	if out, err := exec.Command("go", "build", "-o", program, "github.com/spotbench/spotbench/cmd/localcluster").CombinedOutput(); err != nil {
		t.Fatalf("build localcluster: %v\n%s", err, out)
	}
	if err := os.WriteFile(shapeFile, []byte(twoNodes), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := localcluster.Down(name, io.Discard); err != nil {
		t.Fatal(err)
	}
	before := lookAt(t, name)
	// While the bridge is made, machines start, nodes join, and when all is up.
	for _, after := range []time.Duration{150 * time.Millisecond, 400 * time.Millisecond, 1500 * time.Millisecond, 7 * time.Second} {
		t.Run(after.String(), func(t *testing.T) {
			up := exec.Command(program, "up", "--name", name, "--shape", shapeFile)
			if err := up.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(after)
			_ = up.Process.Kill()
			_ = up.Wait()
			if out, err := exec.Command(program, "down", "--name", name).CombinedOutput(); err != nil {
				t.Fatalf("down: %v\n%s", err, out)
			}
			wantUnchanged(t, before, name)
		})
	}
}

func TestTwoClustersRunBesideEachOther(t *testing.T) {
	needCluster(t)
	names := []string{"e2e-left", "e2e-right"}
	for _, name := range names {
		if err := localcluster.Down(name, io.Discard); err != nil {
			t.Fatal(err)
		}
	}
	before := lookAt(t, names...)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	clusters := make([]*localcluster.Cluster, len(names))
	s := parse(t, oneNode)
	t.Cleanup(func() {
		for _, name := range names {
			if err := localcluster.Down(name, io.Discard); err != nil {
				t.Error(err)
			}
		}
	})
	var group errgroup.Group
	for i, name := range names {
		group.Go(func() (err error) {
			clusters[i], err = localcluster.Up(ctx, localcluster.Options{Name: name, Shape: s, Progress: t.Output()})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	left, right := clusters[0], clusters[1]
	if left.HostIP() == right.HostIP() {
		t.Errorf("both clusters have the host address %s", left.HostIP())
	}
	if err := right.LoadImages(ctx, probeImage(t)); err != nil {
		t.Fatal(err)
	}
	pod := runPod(t, ctx, right, newPod("stays", 0))
	if err := left.Down(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := localcluster.Open(names[0]); !errors.Is(err, localcluster.ErrNotUp) {
		t.Errorf("opening the removed cluster: %v, want ErrNotUp", err)
	}
	// A kubelet that shared anything with the other cluster would lose its pod.
	time.Sleep(3 * time.Second)
	if _, err := tryGet(ctx, "http://"+pod.Status.PodIP+":8080/env"); err != nil {
		t.Errorf("the other cluster's pod no longer answers: %v", err)
	}
	got, err := right.Client().CoreV1().Pods("default").Get(ctx, "stays", metav1.GetOptions{})
	if err != nil || got.UID != pod.UID || got.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("the other cluster's pod was disturbed: %v, %v", got.Status, err)
	}
	again, err := localcluster.Up(ctx, localcluster.Options{Name: names[1], Shape: s})
	if err != nil || again.HostIP() != right.HostIP() {
		t.Errorf("starting a cluster that is up: %v, want the same one back", err)
	}
	if err := right.Down(ctx); err != nil {
		t.Fatal(err)
	}
	wantUnchanged(t, before, names...)
}
