// SPDX-License-Identifier: Apache-2.0

package provider_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/spotbench/spotbench/pkg/interruption"
	"github.com/spotbench/spotbench/pkg/interruption/azure/azmetadatafake"
	"github.com/spotbench/spotbench/pkg/interruption/endpoint"
	"github.com/spotbench/spotbench/pkg/interruption/endpoint/endpointtest"
	"github.com/spotbench/spotbench/pkg/interruption/gcp/gcpmetadatafake"
	"github.com/spotbench/spotbench/pkg/interruption/provider"
)

// ec2 is an IMDSv2 service that announces the end of its instance.
func ec2(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token":
		fmt.Fprint(w, "token")
	case r.Header.Get("X-aws-ec2-metadata-token") != "token":
		w.WriteHeader(http.StatusUnauthorized)
	case r.URL.Path == "/latest/meta-data/spot/instance-action":
		fmt.Fprint(w, `{"action":"terminate","time":"2026-11-23T10:00:00Z"}`)
	default:
		http.NotFound(w, r)
	}
}

func gce() http.Handler {
	s := gcpmetadatafake.New("4711")
	s.Set(gcpmetadatafake.Preempted, "TRUE")
	return s
}

func azure() http.Handler {
	group := azmetadatafake.NewGroup()
	group.Schedule(azmetadatafake.Event{EventID: "e-1", EventType: "Preempt", Resources: []string{"vm"}}, time.Now().Add(30*time.Second))
	return azmetadatafake.New(group, "vm", 0)
}

// firmware is a /sys whose DMI files are as given.
func firmware(t *testing.T, files map[string]string) string {
	t.Helper()
	sys := t.TempDir()
	dir := filepath.Join(sys, "class/dmi/id")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return sys
}

func TestTheProviderIsTheOneThatAnswers(t *testing.T) {
	hang := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	// Each cloud answers the paths of its own.
	all := func(aws, gcp, az http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case strings.HasPrefix(r.URL.Path, "/latest/"):
				aws.ServeHTTP(w, r)
			case strings.HasPrefix(r.URL.Path, "/computeMetadata/"):
				gcp.ServeHTTP(w, r)
			default:
				az.ServeHTTP(w, r)
			}
		})
	}
	google := map[string]string{"product_name": "Google Compute Engine"}
	tests := map[string]struct {
		set     string
		dmi     map[string]string
		service func() http.Handler
		want    interruption.Provider
	}{
		"EC2":                                  {service: func() http.Handler { return http.HandlerFunc(ec2) }, want: interruption.AWS},
		"Compute Engine":                       {service: gce, want: interruption.GCP},
		"Azure":                                {service: azure, want: interruption.Azure},
		"the others hang":                      {service: func() http.Handler { return all(hang, hang, azure()) }, want: interruption.Azure},
		"who answers counts, not the firmware": {dmi: google, service: func() http.Handler { return http.HandlerFunc(ec2) }, want: interruption.AWS},
		"the firmware decides where several answer": {dmi: google, service: func() http.Handler { return all(http.HandlerFunc(ec2), gce(), azure()) }, want: interruption.GCP},
		"a setting counts more than anything":       {set: "azure", dmi: google, service: func() http.Handler { return all(http.HandlerFunc(ec2), gce(), azure()) }, want: interruption.Azure},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			sys := firmware(t, tt.dmi)
			synctest.Test(t, func(t *testing.T) {
				s, err := provider.New(provider.Options{Provider: tt.set, Endpoint: "http://metadata", SysDir: sys, Node: "n1",
					Log: slog.New(slog.DiscardHandler), Transport: endpointtest.Transport{Handler: tt.service()}})
				if err != nil {
					t.Fatal(err)
				}
				var events []interruption.Event
				go s.Run(t.Context(), func(e interruption.Event) { events = append(events, e) })
				time.Sleep(10 * time.Second)
				synctest.Wait()
				if s.Provider() != tt.want || len(events) != 1 || events[0].Provider != tt.want || events[0].Kind != interruption.KindSpot {
					t.Fatalf("provider %q and events %+v, want a reclaim by %s", s.Provider(), events, tt.want)
				}
				if s.Quiet() {
					t.Error("quiet, though a reclaim is in force")
				}
				if ok, err := s.Acknowledge(t.Context(), events[0].Notice); ok != (tt.want == interruption.Azure) || err != nil {
					t.Errorf("acknowledged %t, %v; only Azure waits for it", ok, err)
				}
			})
		})
	}
}

func TestAProviderThatComesLateIsFoundAndItsAbsenceSaidOnce(t *testing.T) {
	sys := firmware(t, nil)
	synctest.Test(t, func(t *testing.T) {
		var up atomic.Bool
		said := &endpointtest.Log{}
		s, err := provider.New(provider.Options{Endpoint: "http://metadata", SysDir: sys, Log: slog.New(slog.NewTextHandler(said, nil)),
			Transport: endpointtest.Transport{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !up.Load() {
					panic(http.ErrAbortHandler)
				}
				ec2(w, r)
			})}})
		if err != nil {
			t.Fatal(err)
		}
		var events []interruption.Event
		go s.Run(t.Context(), func(e interruption.Event) { events = append(events, e) })
		time.Sleep(5 * time.Hour)
		if s.Provider() != "" || s.Quiet() || strings.Count(said.String(), "\n") != 1 {
			t.Errorf("provider %q, quiet %t, and said:\n%s", s.Provider(), s.Quiet(), said)
		}
		up.Store(true)
		time.Sleep(65 * time.Second) // the longest pause between two rounds is a minute
		synctest.Wait()
		if len(events) != 1 {
			t.Errorf("events %+v, want 1", events)
		}
	})
}

func TestFirmware(t *testing.T) {
	tests := map[string]struct {
		files map[string]string
		want  interruption.Provider
	}{
		"Nitro":               {map[string]string{"sys_vendor": "Amazon EC2"}, interruption.AWS},
		"Xen on EC2":          {map[string]string{"sys_vendor": "Xen", "bios_version": "4.11.amazon"}, interruption.AWS},
		"Compute Engine":      {map[string]string{"sys_vendor": "Google", "product_name": "Google Compute Engine"}, interruption.GCP},
		"Azure":               {map[string]string{"sys_vendor": "Microsoft Corporation", "chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77"}, interruption.Azure},
		"Hyper-V at home":     {map[string]string{"sys_vendor": "Microsoft Corporation", "chassis_asset_tag": "1234"}, ""},
		"a machine of metal":  {map[string]string{"sys_vendor": "Supermicro"}, ""},
		"no firmware to read": {nil, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := provider.Firmware(firmware(t, tt.files)); got != tt.want {
				t.Errorf("firmware of %q, want %q", got, tt.want)
			}
		})
	}
}

func TestMetrics(t *testing.T) {
	sys := firmware(t, nil)
	registry := prometheus.NewRegistry()
	metrics := endpoint.NewMetrics(registry)
	var last float64
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		s, err := provider.New(provider.Options{Provider: "azure", Endpoint: "http://metadata", SysDir: sys, Metrics: metrics, Log: slog.New(slog.DiscardHandler),
			Transport: endpointtest.Transport{Handler: func() http.Handler {
				service := azure()
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if down.Load() {
						w.WriteHeader(http.StatusServiceUnavailable)
						return
					}
					service.ServeHTTP(w, r)
				})
			}()}})
		if err != nil {
			t.Fatal(err)
		}
		go s.Run(t.Context(), func(interruption.Event) {})
		time.Sleep(10*time.Second + 500*time.Millisecond)
		last = float64(time.Now().Add(-500*time.Millisecond).UnixMilli()) / 1000
		down.Store(true)
		time.Sleep(time.Second) // one look, at 11 s
		synctest.Wait()
	})
	want := fmt.Sprintf(`
# HELP spotbench_metadata_errors_total Questions about notices without a usable answer, by reason.
# TYPE spotbench_metadata_errors_total counter
spotbench_metadata_errors_total{provider="azure",reason="unavailable"} 1
# HELP spotbench_metadata_last_success_timestamp_seconds When the cloud last answered a question about notices, in seconds since 1970.
# TYPE spotbench_metadata_last_success_timestamp_seconds gauge
spotbench_metadata_last_success_timestamp_seconds{provider="azure"} %g
`, last)
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	for _, o := range []provider.Options{{Provider: "oracle"}, {Endpoint: "metadata"}, {Interval: time.Hour}, {ProcDir: "/nowhere"}} {
		if _, err := provider.New(o); err == nil {
			t.Errorf("accepted %+v", o)
		}
	}
}
