// SPDX-License-Identifier: Apache-2.0

//go:build linux

package network_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/util/wait"
)

// open is what the policies leave to an actor: to whom it may connect, and on which
// ports. What is not here is denied. The rows of envoy, argo, prometheus, scheduler and
// stranger are what others let in, as nothing limits where these connect to.
var open = map[string]map[string][]int{
	"envoy": {
		"catalog-api": {8000}, "object-store": {9000}, "prometheus": ports,
		"argo": ports, "scheduler": ports, "stranger": ports,
	},
	// Out to the data, and nowhere else: not to a benchmark, not to the neighbour.
	"catalog-api": {"catalog-db": {5432, 6379}, "object-store": {5432, 6379}},
	// No policy names it, so that the default stands.
	"catalog-other": {},
	"catalog-db":    {"object-store": {5432, 6379, 8000}},
	"object-store":  {"catalog-db": {5432, 6379, 8000}},
	"benchmark":     {"catalog-db": {5432, 6379, 9000}, "object-store": {5432, 6379, 9000}, "catalog-api": {8000, 8001}},
	"workflow-step": {"catalog-db": {5432, 6379, 9000}, "object-store": {5432, 6379, 9000}, "catalog-api": {8000, 8001}},
	"argo": {
		"benchmark": {8080, 9090}, "workflow-step": {8080, 9090}, "object-store": {9000},
		"envoy": ports, "scheduler": ports, "stranger": ports,
	},
	// Scrapes everywhere.
	"prometheus": {
		"catalog-api": {8001}, "catalog-db": {9187}, "object-store": {9000, 9187}, "benchmark": {9090}, "workflow-step": {9090},
		"envoy": ports, "argo": ports, "scheduler": ports, "stranger": ports,
	},
	"scheduler": {
		"catalog-api": {8000}, "object-store": {9000},
		"envoy": ports, "argo": ports, "stranger": ports,
	},
	// Nobody's friend. The object store is open to the nodes' agents, and so by address to
	// everybody: who may read is decided by keys.
	"stranger": {"object-store": {9000}, "envoy": ports, "argo": ports, "scheduler": ports},
}

// outside is what an actor may reach that is no pod.
var outside = map[string]struct{ apiServer, metadata bool }{
	"envoy":         {true, true},
	"catalog-api":   {true, false}, // asks whose token this is
	"catalog-other": {false, false},
	"catalog-db":    {false, false},
	"object-store":  {false, false},
	"benchmark":     {false, false},
	"workflow-step": {true, false}, // tells what its step returned
	"argo":          {true, true},
	"prometheus":    {true, true},
	"scheduler":     {true, true},
	"stranger":      {true, true},
}

// settle is how long nodes may take to act on a policy.
const settle = time.Minute

func TestPodsConnectToWhomThePoliciesNameAndToNobodyElse(t *testing.T) {
	before := rules(t)
	w := enter(t)
	everything := map[string]map[string][]int{}
	for _, from := range actors {
		everything[from.name] = map[string][]int{}
		for _, to := range actors {
			everything[from.name][to.name] = ports
		}
	}
	t.Run("without policies every pod reaches every port of every other, so that what is closed later is closed by them", func(t *testing.T) {
		w.hold(t, everything)
	})
	if err := w.kubectl.ApplyKustomization(t.Context(), "testdata"); err != nil {
		t.Fatal(err)
	}
	t.Run("with them, what they name is open on both nodes and everything else is closed", func(t *testing.T) {
		t.Logf("\n%s", w.hold(t, open))
	})
	t.Run("names are resolved by every pod, and the API server and the node's metadata are for those who need them", func(t *testing.T) {
		w.holdOutside(t)
	})
	if _, err := w.kubectl.Run(t.Context(), "delete", "networkpolicy", "--all", "--all-namespaces"); err != nil {
		t.Fatal(err)
	}
	t.Run("when they are taken away, everything is open again", func(t *testing.T) {
		w.hold(t, everything)
	})
	t.Run("nodes keep their rules and sets to themselves, while the cluster is there and after", func(t *testing.T) {
		inside, err := w.cluster.Exec(t.Context(), nodes[0], "iptables-save")
		if err != nil || !strings.Contains(string(inside), "KUBE-ROUTER-FORWARD") {
			t.Errorf("the node has no rules of the policy engine: %v", err)
		}
		if diff := cmp.Diff(before, rules(t)); diff != "" {
			t.Errorf("the host's rules with the cluster (-before +with):\n%s", diff)
		}
		if err := w.cluster.Down(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, rules(t)); diff != "" {
			t.Errorf("the host's rules after the cluster (-before +after):\n%s", diff)
		}
	})
}

// hold waits until the connections are those that are wanted, and returns the table.
func (w *world) hold(t *testing.T, want map[string]map[string][]int) string {
	t.Helper()
	var table string
	var wrong []string
	err := wait.PollUntilContextTimeout(t.Context(), time.Second, settle, true, func(ctx context.Context) (bool, error) {
		got, err := w.connections(ctx)
		if err != nil {
			wrong = []string{err.Error()}
			return false, nil //nolint:nilerr // said if it stays so
		}
		table, wrong = compare(got, want)
		return len(wrong) == 0, nil
	})
	if err != nil {
		t.Errorf("%d connections are not as they should be after %s:\n%s\n%s", len(wrong), settle, strings.Join(wrong[:min(len(wrong), 40)], "\n"), table)
	}
	return table
}

// compare draws the table of what is open and says what should not be as it is.
func compare(got map[connection]int, want map[string]map[string][]int) (table string, wrong []string) {
	var text strings.Builder
	out := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "from\tto\topen\tclosed")
	allowed, denied := 0, 0
	for _, from := range actors {
		for _, to := range actors {
			if from.name == to.name {
				continue
			}
			var yes, no []int
			for _, port := range ports {
				n, wanted := got[connection{from.name, to.name, port}], slices.Contains(want[from.name][to.name], port)
				if n > 0 {
					yes = append(yes, port)
				} else {
					no = append(no, port)
				}
				if wanted && n != len(nodes) || !wanted && n != 0 {
					wrong = append(wrong, fmt.Sprintf("%s to %s port %d is open on %d of %d nodes, want open: %v", from.name, to.name, port, n, len(nodes), wanted))
				}
				allowed += n
				denied += len(nodes) - n
			}
			fmt.Fprintf(out, "%s/%s\t%s/%s\t%s\t%s\n", from.namespace, from.name, to.namespace, to.name, listed(yes), listed(no))
		}
	}
	_ = out.Flush() // to memory
	fmt.Fprintf(&text, "%d connections came about, %d were refused\n", allowed, denied)
	return text.String(), wrong
}

func (w *world) holdOutside(t *testing.T) {
	t.Helper()
	apiServer, metadata := w.cluster.HostIP().String()+":6443", "169.254.169.254:80"
	for _, a := range actors {
		want := outside[a.name]
		var last string
		err := wait.PollUntilContextTimeout(t.Context(), time.Second, settle, true, func(ctx context.Context) (bool, error) {
			reached, err := w.try(ctx, a, "dial", []string{apiServer, metadata})
			if err != nil {
				last = err.Error()
				return false, nil //nolint:nilerr // as above
			}
			names, err := w.try(ctx, a, "resolve", []string{"kubernetes.default.svc.cluster.local"})
			if err != nil {
				last = err.Error()
				return false, nil //nolint:nilerr // as above
			}
			last = fmt.Sprintf("API server %v, metadata %v, names %v", reached[apiServer], reached[metadata], names)
			return reached[apiServer] == want.apiServer && reached[metadata] == want.metadata && names["kubernetes.default.svc.cluster.local"], nil
		})
		if err != nil {
			t.Errorf("%s reaches %s; want API server %v, metadata %v, names true", a.name, last, want.apiServer, want.metadata)
			continue
		}
		t.Logf("%s/%s reaches %s", a.namespace, a.name, last)
	}
}
