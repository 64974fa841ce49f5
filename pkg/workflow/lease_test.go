// SPDX-License-Identifier: Apache-2.0

package workflow

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/spotbench/spotbench/pkg/apiserver"
)

// server holds one Lease and, as an API server does, refuses a write that did not see the
// newest: client-go's fake does not.
type server struct {
	apiserver.Leases
	mu      sync.Mutex
	version int
	away    map[string]bool // for whom it is
}

// of is the server as an agent sees it.
type view struct {
	*server
	agent string
}

var errAway = errors.New("connection refused")

func newServer() *server {
	return &server{Leases: fake.NewSimpleClientset().CoordinationV1().Leases("ns"), away: map[string]bool{}}
}

func (s *server) cut(agent string, away bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away[agent] = away
}

func (v view) Get(ctx context.Context, name string, o metav1.GetOptions) (*coordinationv1.Lease, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.away[v.agent] {
		return nil, errAway
	}
	return v.Leases.Get(ctx, name, o)
}

func (v view) Create(ctx context.Context, lease *coordinationv1.Lease, o metav1.CreateOptions) (*coordinationv1.Lease, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.away[v.agent] {
		return nil, errAway
	}
	v.version++
	lease.ResourceVersion = string(rune('a' + v.version))
	return v.Leases.Create(ctx, lease, o)
}

func (v view) Update(ctx context.Context, lease *coordinationv1.Lease, o metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.away[v.agent] {
		return nil, errAway
	}
	now, err := v.Leases.Get(ctx, lease.Name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	if now.ResourceVersion != lease.ResourceVersion {
		return nil, errors.New("conflict")
	}
	v.version++
	lease = lease.DeepCopy()
	lease.ResourceVersion = string(rune('a' + v.version))
	return v.Leases.Update(ctx, lease, o)
}

// agents stand for the Lease, and say who leads.
type agents struct {
	t       *testing.T
	server  *server
	leading sync.Map // *atomic.Int32 by name
	ends    map[string]func()
}

func (a *agents) start(names ...string) {
	a.t.Helper()
	for _, name := range names {
		count, _ := a.leading.LoadOrStore(name, new(atomic.Int32))
		ctx, cancel := context.WithCancel(a.t.Context())
		l := &lease{leases: view{a.server, name}, namespace: "ns", name: "l", identity: name,
			terms: terms{duration: time.Second, deadline: 600 * time.Millisecond, pause: 50 * time.Millisecond}}
		done := make(chan struct{})
		go func() {
			defer close(done)
			l.run(ctx, func(ctx context.Context) {
				count.(*atomic.Int32).Add(1)
				defer count.(*atomic.Int32).Add(-1)
				<-ctx.Done()
			})
		}()
		a.ends[name] = func() { cancel(); <-done }
		a.t.Cleanup(a.ends[name])
	}
}

// leaders are those that lead now.
func (a *agents) leaders() []string {
	var names []string
	a.leading.Range(func(name, count any) bool {
		for range count.(*atomic.Int32).Load() {
			names = append(names, name.(string))
		}
		return true
	})
	return names
}

// await waits until exactly one leads that is not among others, and gives its name.
func (a *agents) await(within time.Duration, not string) string {
	a.t.Helper()
	for deadline := time.Now().Add(within); ; time.Sleep(time.Millisecond) {
		if now := a.leaders(); len(now) == 1 && now[0] != not {
			return now[0]
		}
		if time.Now().After(deadline) {
			a.t.Fatalf("after %s %v lead, want one that is not %q", within, a.leaders(), not)
		}
	}
}

func newAgents(t *testing.T, names ...string) *agents {
	a := &agents{t: t, server: newServer(), ends: map[string]func(){}}
	a.start(names...)
	return a
}

func TestOneAgentLeadsAndKeepsTheLease(t *testing.T) {
	a := newAgents(t, "n0", "n1", "n2")
	first := a.await(5*time.Second, "")
	for until := time.Now().Add(2500 * time.Millisecond); time.Now().Before(until); time.Sleep(time.Millisecond) {
		if now := a.leaders(); len(now) != 1 || now[0] != first {
			t.Fatalf("%v lead, want %s alone", now, first)
		}
	}
}

func TestALeaderThatEndsLetsTheNextOneLeadAtOnce(t *testing.T) {
	a := newAgents(t, "n0", "n1")
	first := a.await(5*time.Second, "")
	begun := time.Now()
	a.ends[first]()
	a.await(5*time.Second, first)
	if took := time.Since(begun); took > 900*time.Millisecond {
		t.Errorf("the next agent leads after %s, as if the Lease had to run out", took)
	}
}

func TestALeaderThatIsCutOffStopsBeforeTheNextOneLeads(t *testing.T) {
	a := newAgents(t, "n0", "n1")
	first := a.await(5*time.Second, "")
	a.server.cut(first, true)
	begun := time.Now()
	for len(a.leaders()) == 1 && a.leaders()[0] == first {
		if time.Since(begun) > 5*time.Second {
			t.Fatal("the agent that is cut off goes on leading")
		}
		time.Sleep(time.Millisecond)
	}
	if now := a.leaders(); len(now) > 0 {
		t.Errorf("%v leads already", now)
	}
	second := a.await(5*time.Second, first)
	a.server.cut(first, false)
	for until := time.Now().Add(1500 * time.Millisecond); time.Now().Before(until); time.Sleep(time.Millisecond) {
		if now := a.leaders(); len(now) != 1 || now[0] != second {
			t.Fatalf("%v lead, want %s alone though %s is back", now, second, first)
		}
	}
}

func TestALeaderWhoseServerIsAwayForAMomentGoesOn(t *testing.T) {
	a := newAgents(t, "n0")
	a.await(5*time.Second, "")
	a.server.cut("n0", true)
	for until := time.Now().Add(300 * time.Millisecond); time.Now().Before(until); time.Sleep(time.Millisecond) {
		if len(a.leaders()) != 1 {
			t.Fatal("it leads no longer")
		}
	}
	a.server.cut("n0", false)
	time.Sleep(600 * time.Millisecond)
	if len(a.leaders()) != 1 {
		t.Error("it leads no longer")
	}
}

// TestTheClockOfTheHolderDoesNotMatter has a Lease that claims to have been renewed in
// another year: only whether it changes counts.
func TestTheClockOfTheHolderDoesNotMatter(t *testing.T) {
	for name, renewed := range map[string]time.Time{"an hour ago": time.Now().Add(-time.Hour), "in an hour": time.Now().Add(time.Hour)} {
		t.Run(name, func(t *testing.T) {
			a := &agents{t: t, server: newServer(), ends: map[string]func(){}}
			other, seconds, at := "n9", int32(1), metav1.NewMicroTime(renewed)
			if _, err := (view{a.server, "n9"}).Create(t.Context(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "l"},
				Spec: coordinationv1.LeaseSpec{HolderIdentity: &other, LeaseDurationSeconds: &seconds, RenewTime: &at}}, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			a.start("n0")
			a.await(5*time.Second, "")
			if took := time.Since(begun); took < 950*time.Millisecond {
				t.Errorf("took the Lease after %s", took)
			}
		})
	}
}
