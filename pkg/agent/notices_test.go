// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"context"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/spotbench/spotbench/pkg/agent"
	"github.com/spotbench/spotbench/pkg/agent/spool"
	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/interruption"
)

// node is an agent whose node has no pods, and what the API server says of the node.
type node struct {
	t      *testing.T
	agent  *agent.Agent
	client *fake.Clientset
}

func newNode(t *testing.T, lead time.Duration) *node {
	t.Helper()
	queue, err := spool.Open(filepath.Join(t.TempDir(), "spool"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	client := fake.NewSimpleClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}})
	a, err := agent.New(agent.Config{Node: "n1", HoldDir: t.TempDir(), JournalDir: t.TempDir(), MaintenanceLead: lead}, agent.FakeCluster{Clientset: client}, nil, nil, nil, queue,
		prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for a.Ready() != nil {
		time.Sleep(time.Millisecond)
	}
	return &node{t: t, agent: a, client: client}
}

// taint is the value of our taint; "" if there is none.
func (n *node) taint() string {
	n.t.Helper()
	object, err := n.client.CoreV1().Nodes().Get(n.t.Context(), "n1", metav1.GetOptions{})
	if err != nil {
		n.t.Fatal(err)
	}
	i := slices.IndexFunc(object.Spec.Taints, func(t corev1.Taint) bool { return t.Key == benchspec.TaintInterruption })
	if i < 0 {
		return ""
	}
	return object.Spec.Taints[i].Value
}

func (n *node) given(ctx context.Context, notice interruption.Notice) bool {
	notice.SeenAt = time.Now()
	n.agent.Heed(interruption.Event{Notice: notice})
	return n.agent.HandleNotice(ctx, notice)
}

func (n *node) withdrawn(ctx context.Context, notice interruption.Notice) {
	n.agent.Heed(interruption.Event{Notice: notice, Withdrawn: true})
	n.agent.Withdraw(ctx, notice)
}

// labels are the node's.
func (n *node) labels() map[string]string {
	n.t.Helper()
	object, err := n.client.CoreV1().Nodes().Get(n.t.Context(), "n1", metav1.GetOptions{})
	if err != nil {
		n.t.Fatal(err)
	}
	return object.Labels
}

func notice(id string, kind interruption.Kind, left time.Duration) interruption.Notice {
	return interruption.Notice{ID: id, Kind: kind, Action: "terminate", Deadline: time.Now().Add(left)}
}

func TestTheWarningStaysAsLongAsAnyNoticeThatTakesTheMachineIsInForce(t *testing.T) {
	n := newNode(t, time.Hour)
	spot, end := notice("spot", interruption.KindSpot, 2*time.Minute), notice("end", interruption.KindTermination, 5*time.Minute)
	rebalance := notice("rebalance", interruption.KindRebalance, 0)
	for _, given := range []interruption.Notice{rebalance, spot, end} {
		n.given(t.Context(), given)
	}
	steps := []struct {
		withdrawn interruption.Notice
		warned    bool
	}{{rebalance, true}, {spot, true}, {end, false}}
	for _, step := range steps {
		n.withdrawn(t.Context(), step.withdrawn)
		if got := n.taint() != ""; got != step.warned {
			t.Fatalf("after %s was withdrawn: warned %t, want %t", step.withdrawn.ID, got, step.warned)
		}
	}
}

// TestAWarnedNodeIsLeftOutByLoadBalancersAndTakenInAgain but for a label that is somebody
// else's: that stays.
func TestAWarnedNodeIsLeftOutByLoadBalancersAndTakenInAgain(t *testing.T) {
	const label = "node.kubernetes.io/exclude-from-external-load-balancers"
	for name, tt := range map[string]struct{ before, during map[string]string }{
		"a node of every load balancer":         {map[string]string{"team": "a"}, map[string]string{"team": "a", label: "spotbench"}},
		"a node that somebody else left out":    {map[string]string{label: "true"}, map[string]string{label: "true"}},
		"a label without a value is theirs too": {map[string]string{label: ""}, map[string]string{label: ""}},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, time.Hour)
			object, err := n.client.CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			object.Labels = tt.before
			if _, err := n.client.CoreV1().Nodes().Update(t.Context(), object, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			rebalance := notice("rebalance", interruption.KindRebalance, 0)
			n.given(t.Context(), rebalance)
			if got := n.labels(); !maps.Equal(got, tt.before) {
				t.Errorf("a recommendation made the labels %v", got)
			}
			spot, end := notice("spot", interruption.KindSpot, 2*time.Minute), notice("end", interruption.KindTermination, 5*time.Minute)
			n.given(t.Context(), spot)
			n.given(t.Context(), end)
			n.withdrawn(t.Context(), spot)
			if got := n.labels(); !maps.Equal(got, tt.during) || n.taint() == "" {
				t.Errorf("labels %v while warned, want %v", got, tt.during)
			}
			n.withdrawn(t.Context(), end)
			if got := n.labels(); !maps.Equal(got, tt.before) || n.taint() != "" {
				t.Errorf("labels %v afterwards, want %v", got, tt.before)
			}
		})
	}
}

func TestANoticeThatLeavesTheMachineWarnsNobodyAndIsNotToBeAcknowledged(t *testing.T) {
	n := newNode(t, time.Hour)
	for _, kind := range []interruption.Kind{interruption.KindRebalance, interruption.KindPause} {
		if n.given(t.Context(), notice(string(kind), kind, time.Minute)) || n.taint() != "" {
			t.Errorf("%s: the node is tainted %q or the cloud would be told to go ahead", kind, n.taint())
		}
	}
}

func TestARecommendationThatIsOverRaisesTheRiskNoLonger(t *testing.T) {
	n := newNode(t, time.Hour)
	recommended := notice("rebalance", interruption.KindRebalance, 0)
	for _, step := range []struct {
		do   func()
		want corev1.ConditionStatus
	}{{func() { n.given(t.Context(), recommended) }, corev1.ConditionTrue}, {func() { n.withdrawn(t.Context(), recommended) }, corev1.ConditionFalse}} {
		step.do()
		object, err := n.client.CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(object.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == benchspec.ConditionRebalance })
		if i < 0 || object.Status.Conditions[i].Status != step.want {
			t.Errorf("conditions %+v, want %s %s", object.Status.Conditions, benchspec.ConditionRebalance, step.want)
		}
	}
}

func TestPlannedMaintenanceIsActedUponOnlyWhenItsTimeHasCome(t *testing.T) {
	n := newNode(t, time.Hour)
	far := notice("far", interruption.KindMaintenance, 48*time.Hour)
	done := make(chan bool)
	go func() { done <- n.given(t.Context(), far) }()
	// 40 min are less than the lead of an hour.
	if !n.given(t.Context(), notice("near", interruption.KindMaintenance, 40*time.Minute)) || n.taint() != "maintenance" {
		t.Fatalf("taint %q, want the node warned of what is near, and nothing left to do", n.taint())
	}
	n.withdrawn(t.Context(), notice("near", interruption.KindMaintenance, 40*time.Minute))
	if n.taint() != "" {
		t.Fatal("the node is still warned, because of maintenance in two days")
	}
	n.withdrawn(t.Context(), far)
	if <-done {
		t.Error("the cloud would be told to go ahead with what it has cancelled")
	}
}

func TestANoticeThatWasWithdrawnBeforeAnythingWasDoneIsNotActedUpon(t *testing.T) {
	n := newNode(t, time.Hour)
	spot := notice("spot", interruption.KindSpot, time.Minute)
	n.agent.Heed(interruption.Event{Notice: spot})
	n.withdrawn(t.Context(), spot) // its goroutine was faster
	if n.agent.HandleNotice(t.Context(), spot) || n.taint() != "" {
		t.Errorf("taint %q, want none", n.taint())
	}
}

func TestANoticeWithoutATimeIsActedUponAtOnce(t *testing.T) {
	n := newNode(t, time.Hour)
	if !n.given(t.Context(), interruption.Notice{ID: "asg", Kind: interruption.KindTermination, Action: "terminate"}) || n.taint() != "termination" {
		t.Errorf("taint %q, want termination, and nothing left to do", n.taint())
	}
}
