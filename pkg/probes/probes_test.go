// SPDX-License-Identifier: Apache-2.0

package probes_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/spotbench/spotbench/pkg/probes"
)

// freeAddress is an address that was free a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestAProgramThatIsNotReadySaysWhyAndStaysHealthy(t *testing.T) {
	registry := prometheus.NewRegistry()
	gpus := prometheus.NewGauge(prometheus.GaugeOpts{Name: "gpus", Help: "GPUs."})
	gpus.Set(8)
	registry.MustRegister(gpus)
	state := errors.New("the kubelet is not reached yet")
	address := freeAddress(t)
	stop, err := probes.Start(context.Background(), "--listen", address, registry, func() error { return state })
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + address
	if code, body := get(t, url+"/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "kubelet is not reached") {
		t.Errorf("GET /readyz: %d %q, want 503 and the reason", code, body)
	}
	if code, _ := get(t, url+"/healthz"); code != http.StatusOK {
		t.Errorf("GET /healthz: %d, want 200", code)
	}
	state = nil
	if code, _ := get(t, url+"/readyz"); code != http.StatusOK {
		t.Errorf("GET /readyz once ready: %d, want 200", code)
	}
	if code, body := get(t, url+"/metrics"); code != http.StatusOK || !strings.Contains(body, "\ngpus 8\n") {
		t.Errorf("GET /metrics: %d %q, want gpus 8", code, body)
	}
	stop()
	if _, err := http.Get(url + "/healthz"); err == nil {
		t.Error("it still answers after stop")
	}
}

func TestAnAddressThatIsTakenNamesTheFlagAndAnExample(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = probes.Start(context.Background(), "--listen", l.Addr().String(), prometheus.NewRegistry(), probes.Always)
	if err == nil || !strings.Contains(err.Error(), "--listen") || !strings.Contains(err.Error(), ":9090") {
		t.Errorf("error %v, want one that names --listen and an example", err)
	}
}
