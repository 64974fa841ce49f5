// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cri_test

import (
	"archive/tar"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/spotbench/spotbench/pkg/agent/cri"
	"github.com/spotbench/spotbench/pkg/images"
)

// Debian 12 has no containerd that can checkpoint, and its CRIU does not know kernels of
// today, so the test is told where better ones are.
var (
	containerdDir = flag.String("containerd", "", "directory with containerd 2.0 or later, its shim and ctr")
	criuDir       = flag.String("criu", "", "directory with a criu for this kernel (default: the system's)")
)

func TestARealContainerIsCheckpointedAndGoesOn(t *testing.T) {
	if *containerdDir == "" {
		t.Skip("give -containerd DIR of containerd 2.0 or later (and -criu DIR): the distribution's cannot checkpoint")
	}
	socket := startContainerd(t)
	log := runPod(t, socket, "uid-1", "main")
	r, err := cri.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	name, version, err := r.Version(ctx)
	if err != nil || name != "containerd" || !strings.HasPrefix(version, "2.") {
		t.Fatalf("the runtime is %s %s (%v)", name, version, err)
	}
	beats := func() int {
		data, err := os.ReadFile(log)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return strings.Count(string(data), "\n")
	}
	awaitBeats := func(n int) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); beats() < n; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the container has %d beats, want %d", beats(), n)
			}
		}
	}
	awaitBeats(3)
	memory, err := r.Memory(ctx, "uid-1", "main")
	if err != nil || memory < heldMemory || memory > 2*heldMemory {
		t.Errorf("the container has %d bytes in memory (%v), want a little more than %d", memory, err, heldMemory)
	}
	archive := filepath.Join(t.TempDir(), "checkpoint.tar")
	begun := time.Now()
	if err := r.Checkpoint(ctx, "uid-1", "main", archive); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes in memory were checkpointed in %s", memory, time.Since(begun))
	pages := int64(0)
	for file, size := range contents(t, archive) {
		if strings.HasPrefix(file, "checkpoint/pages-") {
			pages += size
		}
	}
	if pages < heldMemory {
		t.Errorf("the archive has %d bytes of memory, want at least %d", pages, heldMemory)
	}
	awaitBeats(beats() + 3) // it goes on
	if err := r.Checkpoint(ctx, "uid-1", "other", archive); !errors.Is(err, cri.ErrNotRunning) {
		t.Errorf("the checkpoint of a container that is not there: %v", err)
	}
}

// heldMemory is what the container of the test has in memory.
const heldMemory = 32 << 20

const heart = `package main

import (
	"fmt"
	"time"
)

func main() {
	held := make([]byte, 32<<20)
	for i := range held {
		held[i] = byte(i * 7)
	}
	for i := 0; ; i++ {
		fmt.Println("beat", i, held[i])
		time.Sleep(100 * time.Millisecond)
	}
}
`

// startContainerd runs a containerd of its own and returns its socket.
func startContainerd(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("containerd needs root")
	}
	dir, err := os.MkdirTemp("", "cri-") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "c.sock")
	config := fmt.Sprintf(`version = 3
root = %q
state = %q
[grpc]
  address = %q
[ttrpc]
  address = %q
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = %q
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  disable_apparmor = true
  tolerate_missing_hugetlb_controller = true
  disable_hugetlb_controller = true
[plugins.'io.containerd.internal.v1.opt']
  path = %q
`, dir+"/root", dir+"/state", socket, socket+".ttrpc", images.PauseRef, dir+"/opt")
	if err := os.WriteFile(dir+"/config.toml", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	output, err := os.Create(dir + "/log")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if data, err := os.ReadFile(output.Name()); err == nil && t.Failed() {
			t.Logf("%s", data[max(0, len(data)-4000):])
		}
		_ = output.Close()
	})
	cmd := exec.Command(filepath.Join(*containerdDir, "containerd"), "-c", dir+"/config.toml")
	cmd.Env = append(os.Environ(), "PATH="+strings.Join([]string{*criuDir, *containerdDir, os.Getenv("PATH")}, ":"))
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	return socket
}

// runPod runs a pod with one container on the host's network and returns its log.
func runPod(t *testing.T, socket, uid, container string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/main.go", []byte(heart), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", dir+"/heart", dir+"/main.go")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	heartImage := images.Image{Ref: "spotbench.dev/heart:test", Entrypoint: []string{"/heart"}, Entries: []images.Entry{{Path: "/heart", Source: dir + "/heart", Mode: 0o755}}}
	if err := heartImage.Write(dir + "/heart.tar"); err != nil {
		t.Fatal(err)
	}
	pause, err := images.EnsurePause(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	api := runtimev1.NewRuntimeServiceClient(conn)
	if _, err := api.Version(t.Context(), &runtimev1.VersionRequest{}, grpc.WaitForReady(true)); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{pause, dir + "/heart.tar"} {
		if output, err := exec.Command(filepath.Join(*containerdDir, "ctr"), "-a", socket, "-n", "k8s.io", "images", "import", file).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, output)
		}
	}
	host := &runtimev1.NamespaceOption{Network: runtimev1.NamespaceMode_NODE}
	labels := map[string]string{"io.kubernetes.pod.uid": uid, "io.kubernetes.container.name": container}
	pod := &runtimev1.PodSandboxConfig{Metadata: &runtimev1.PodSandboxMetadata{Name: "pod", Uid: uid, Namespace: "default"}, LogDirectory: dir, Labels: labels,
		Linux: &runtimev1.LinuxPodSandboxConfig{CgroupParent: "/spotbench-cri-test", SecurityContext: &runtimev1.LinuxSandboxSecurityContext{NamespaceOptions: host}}}
	sandbox, err := api.RunPodSandbox(t.Context(), &runtimev1.RunPodSandboxRequest{Config: pod})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = api.StopPodSandbox(context.Background(), &runtimev1.StopPodSandboxRequest{PodSandboxId: sandbox.GetPodSandboxId()})
		_, _ = api.RemovePodSandbox(context.Background(), &runtimev1.RemovePodSandboxRequest{PodSandboxId: sandbox.GetPodSandboxId()})
	})
	created, err := api.CreateContainer(t.Context(), &runtimev1.CreateContainerRequest{PodSandboxId: sandbox.GetPodSandboxId(), SandboxConfig: pod, Config: &runtimev1.ContainerConfig{
		Metadata: &runtimev1.ContainerMetadata{Name: container}, Labels: labels, LogPath: "log",
		Image: &runtimev1.ImageSpec{Image: heartImage.Ref, UserSpecifiedImage: heartImage.Ref},
		Linux: &runtimev1.LinuxContainerConfig{SecurityContext: &runtimev1.LinuxContainerSecurityContext{NamespaceOptions: host}}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.StartContainer(t.Context(), &runtimev1.StartContainerRequest{ContainerId: created.GetContainerId()}); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "log")
}

// contents are the sizes of a tar's files.
func contents(t *testing.T, file string) map[string]int64 {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sizes := map[string]int64{}
	for r := tar.NewReader(f); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return sizes
		}
		if err != nil {
			t.Fatal(err)
		}
		sizes[header.Name] = header.Size
	}
}
