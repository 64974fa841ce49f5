// SPDX-License-Identifier: Apache-2.0

package deviceplugin_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/spotbench/spotbench/pkg/deviceplugin"
)

var uuids = []string{"GPU-0", "GPU-1", "GPU-2"}

// kubelet serves the registration service on a real socket, as the kubelet does.
type kubelet struct {
	pluginapi.UnimplementedRegistrationServer
	registered chan *pluginapi.RegisterRequest
}

func (k *kubelet) Register(_ context.Context, r *pluginapi.RegisterRequest) (*pluginapi.Empty, error) {
	k.registered <- r
	return &pluginapi.Empty{}, nil
}

// startKubelet starts one; like the real one it first clears the directory of sockets.
func startKubelet(t *testing.T, dir string) (*kubelet, func()) {
	t.Helper()
	sockets, err := filepath.Glob(filepath.Join(dir, "*.sock"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sockets {
		if err := os.Remove(s); err != nil {
			t.Fatal(err)
		}
	}
	listener, err := net.Listen("unix", filepath.Join(dir, "kubelet.sock"))
	if err != nil {
		t.Fatal(err)
	}
	k := &kubelet{registered: make(chan *pluginapi.RegisterRequest, 10)}
	server := grpc.NewServer()
	pluginapi.RegisterRegistrationServer(server, k)
	go func() { _ = server.Serve(listener) }()
	return k, server.Stop
}

func (k *kubelet) wait(t *testing.T) *pluginapi.RegisterRequest {
	t.Helper()
	select {
	case r := <-k.registered:
		return r
	case <-time.After(10 * time.Second):
		t.Fatal("the plugin did not register within 10 s")
		return nil
	}
}

// startPlugin runs the plugin until the test ends, and wants it to end well.
func startPlugin(t *testing.T, dir, lost string) { t.Helper(); startPluginAt(t, dir, lost, "") }

// startPluginAt also answers probes on an address.
func startPluginAt(t *testing.T, dir, lost, listen string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- deviceplugin.Run(ctx, deviceplugin.Config{Dir: dir, UUIDs: uuids, LostFile: lost, Listen: listen, RetryDelay: 20 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func dial(t *testing.T, dir, endpoint string) pluginapi.DevicePluginClient {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+filepath.Join(dir, endpoint), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return pluginapi.NewDevicePluginClient(conn)
}

// health is one list of GPUs as "GPU-0=Healthy GPU-1=Healthy".
func health(t *testing.T, stream grpc.ServerStreamingClient[pluginapi.ListAndWatchResponse]) string {
	t.Helper()
	resp, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var parts []string
	for _, d := range resp.GetDevices() {
		parts = append(parts, d.GetID()+"="+d.GetHealth())
	}
	return strings.Join(parts, " ")
}

func TestThePluginServesItsGPUsAndFollowsTheListOfLostOnes(t *testing.T) {
	dir := t.TempDir()
	lost := filepath.Join(t.TempDir(), "lost")
	k, stop := startKubelet(t, dir)
	defer stop()
	startPlugin(t, dir, lost)
	r := k.wait(t)
	if r.GetResourceName() != "nvidia.com/gpu" || r.GetVersion() != "v1beta1" {
		t.Errorf("registered %s in version %s, want nvidia.com/gpu in v1beta1", r.GetResourceName(), r.GetVersion())
	}
	stream, err := dial(t, dir, r.GetEndpoint()).ListAndWatch(t.Context(), &pluginapi.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := health(t, stream), "GPU-0=Healthy GPU-1=Healthy GPU-2=Healthy"; got != want {
		t.Errorf("GPUs %s, want %s", got, want)
	}
	for _, step := range []struct{ content, want string }{
		{"GPU-1 # fell off the bus\n", "GPU-0=Healthy GPU-1=Unhealthy GPU-2=Healthy"},
		{"# all is well\n\n", "GPU-0=Healthy GPU-1=Healthy GPU-2=Healthy"},
	} {
		// As the cluster does it: a new file in place of the old one.
		if err := os.WriteFile(lost+".part", []byte(step.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(lost+".part", lost); err != nil {
			t.Fatal(err)
		}
		if got := health(t, stream); got != step.want {
			t.Errorf("with the list %q: GPUs %s, want %s", step.content, got, step.want)
		}
	}
}

func TestAllocateNamesTheGPUsOfEachContainerInIndexOrder(t *testing.T) {
	dir := t.TempDir()
	k, stop := startKubelet(t, dir)
	defer stop()
	startPlugin(t, dir, "")
	client := dial(t, dir, k.wait(t).GetEndpoint())
	resp, err := client.Allocate(t.Context(), &pluginapi.AllocateRequest{ContainerRequests: []*pluginapi.ContainerAllocateRequest{
		{DevicesIds: []string{"GPU-2", "GPU-0"}}, {DevicesIds: []string{"GPU-1"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"GPU-0,GPU-2", "GPU-1"} {
		if got := resp.GetContainerResponses()[i].GetEnvs()[deviceplugin.EnvVisibleDevices]; got != want {
			t.Errorf("container %d: %s=%q, want %q", i, deviceplugin.EnvVisibleDevices, got, want)
		}
	}
	_, err = client.Allocate(t.Context(), &pluginapi.AllocateRequest{ContainerRequests: []*pluginapi.ContainerAllocateRequest{{DevicesIds: []string{"GPU-9"}}}})
	if status.Code(err) != codes.Unknown || !strings.Contains(err.Error(), `"GPU-9"`) {
		t.Errorf("allocating a GPU that is not there: %v, want an error that names it", err)
	}
}

func TestThePluginWaitsForTheKubeletAndRegistersAgainWhenItRestarts(t *testing.T) {
	dir := t.TempDir()
	startPlugin(t, dir, "")
	time.Sleep(100 * time.Millisecond) // five attempts without a kubelet
	for i := range 3 {
		k, stop := startKubelet(t, dir)
		r := k.wait(t)
		stream, err := dial(t, dir, r.GetEndpoint()).ListAndWatch(t.Context(), &pluginapi.Empty{})
		if err != nil {
			t.Fatal(err)
		}
		if got := health(t, stream); !strings.HasPrefix(got, "GPU-0=Healthy") {
			t.Errorf("kubelet %d sees %s", i, got)
		}
		stop()
	}
}

func TestThePluginIsReadyOnceAKubeletKnowsItAndCountsItsGPUs(t *testing.T) {
	dir := t.TempDir()
	lost := filepath.Join(t.TempDir(), "lost")
	if err := os.WriteFile(lost, []byte("GPU-2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	_ = free.Close()
	startPluginAt(t, dir, lost, address)
	if code, body := get(t, address, "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, dir) {
		t.Errorf("without a kubelet: /readyz %d %q, want 503 with the directory", code, body)
	}
	k, stop := startKubelet(t, dir)
	defer stop()
	client := dial(t, dir, k.wait(t).GetEndpoint())
	if _, err := client.Allocate(t.Context(), &pluginapi.AllocateRequest{ContainerRequests: []*pluginapi.ContainerAllocateRequest{{DevicesIds: []string{"GPU-0", "GPU-1"}}}}); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for code := 0; code != http.StatusOK; code, _ = get(t, address, "/readyz") {
		if time.Now().After(deadline) {
			t.Fatal("not ready within 10 s of its registration")
		}
	}
	_, metrics := get(t, address, "/metrics")
	for _, want := range []string{
		`spotbench_deviceplugin_gpus{health="Healthy"} 2`,
		`spotbench_deviceplugin_gpus{health="Unhealthy"} 1`,
		`spotbench_deviceplugin_registrations_total 1`,
		`spotbench_deviceplugin_gpus_allocated_total 2`,
	} {
		if !strings.Contains(metrics, want+"\n") {
			t.Errorf("no %s in\n%s", want, metrics)
		}
	}
}

// get asks until the address answers.
func get(t *testing.T, address, path string) (int, string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		resp, err := http.Get("http://" + address + path)
		if err != nil {
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
			continue
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
}

func TestAConfigurationWithoutGPUsOrWithOneTwiceIsRefused(t *testing.T) {
	for _, c := range []struct {
		uuids []string
		want  string
	}{{nil, "name at least one"}, {[]string{"GPU-a", "GPU-b", "GPU-a"}, "twice"}} {
		err := deviceplugin.Run(t.Context(), deviceplugin.Config{Dir: t.TempDir(), UUIDs: c.uuids})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("UUIDs %v: %v, want an error with %q", c.uuids, err, c.want)
		}
	}
}
