// SPDX-License-Identifier: Apache-2.0

package openb_test

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spotbench/spotbench/bench/placement/internal/openb"
)

func data(t *testing.T, name string) *os.File {
	t.Helper()
	dir := os.Getenv("SPOTBENCH_DATA")
	if dir == "" {
		t.Skip("SPOTBENCH_DATA is not set: point it at a directory with openb/, the trace of github.com/hkust-adsl/kubernetes-scheduler-simulator data/csv")
	}
	f, err := os.Open(filepath.Join(dir, "openb", name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestThePodsOfTheTraceArriveInThePublishedOrder(t *testing.T) {
	nodes, err := openb.ReadNodes(data(t, "openb_node_list_gpu_node.csv"))
	if err != nil {
		t.Fatal(err)
	}
	pods, err := openb.ReadPods(data(t, "openb_pod_list_default.csv"))
	if err != nil {
		t.Fatal(err)
	}
	if len(nodes) != 1213 || openb.Capacity(nodes) != 6_212_000 || len(pods) != 8152 {
		t.Fatalf("%d nodes with %d GPU milli, %d pods; want 1213, 6212000, 8152", len(nodes), openb.Capacity(nodes), len(pods))
	}
	for seed, want := range map[int64]string{42: "f133eadd0f2d", 43: "bfe1b173", 44: "3b60d10b"} {
		arrivals, order := openb.Arrivals(pods, openb.Capacity(nodes), len(nodes), seed, 1.3)
		hash := sha256.New()
		for _, p := range arrivals {
			hash.Write([]byte(p.Name + "\n"))
		}
		if got := hex.EncodeToString(hash.Sum(nil)); !strings.HasPrefix(got, want) {
			t.Errorf("seed %d: %d arrivals with sha256 %s, want %s…; first %s", seed, len(arrivals), got, want, arrivals[0].Name)
		}
		if len(order) != len(nodes) {
			t.Errorf("seed %d: %d nodes in order", seed, len(order))
		}
	}
}
