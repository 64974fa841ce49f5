// SPDX-License-Identifier: Apache-2.0

package workflow

import (
	"context"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/spotbench/spotbench/pkg/apiserver"
)

// lease is one agent's standing for the Lease, by the rules of client-go's leader
// election, whose package brings every kind of Kubernetes along: a Lease is free when it
// has no holder, or when it has stayed the same for its own duration by this agent's clock.
// What the leader does is right should two agents believe to be it; see Keeper.lead.
type lease struct {
	leases          apiserver.Leases
	namespace, name string
	identity        string
	terms           terms
	last            *coordinationv1.Lease // as it was last seen
	changed         time.Time             // when it was first seen so
}

// terms of a Lease.
type terms struct {
	duration time.Duration // after which others may take it
	deadline time.Duration // after which the holder gives up what it cannot renew
	pause    time.Duration // between two attempts
}

// defaultTerms are kube-scheduler's.
var defaultTerms = terms{duration: 15 * time.Second, deadline: 10 * time.Second, pause: 2 * time.Second}

// run asks for the Lease until ctx ends, and has lead run while it is held. When it
// returns, lead has, and the Lease is given up.
func (l *lease) run(ctx context.Context, lead func(context.Context)) {
	for ctx.Err() == nil {
		if l.take(ctx) {
			l.hold(ctx, lead)
		}
		l.rest(ctx)
	}
}

// rest waits for the next attempt; agents that began together do not go on together.
func (l *lease) rest(ctx context.Context) {
	select {
	case <-time.After(wait.Jitter(l.terms.pause, 0.2)):
	case <-ctx.Done():
	}
}

// hold has lead run for as long as the Lease can be renewed.
func (l *lease) hold(ctx context.Context, lead func(context.Context)) {
	leading, end := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		lead(leading)
	}()
	for renewed := time.Now(); ctx.Err() == nil; {
		if l.rest(ctx); l.take(ctx) {
			renewed = time.Now()
		} else if !l.mine() || time.Since(renewed) >= l.terms.deadline {
			break
		}
	}
	end()
	<-ended
	if ctx.Err() != nil && l.mine() {
		l.release(context.WithoutCancel(ctx))
	}
}

// take acquires the Lease, or renews it. An attempt that takes too long has failed, so
// that a holder hears in time that it must give up.
func (l *lease) take(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, l.terms.deadline/2)
	defer cancel()
	found, err := l.leases.Get(ctx, l.name, metav1.GetOptions{})
	now := metav1.NowMicro()
	if apierrors.IsNotFound(err) {
		created := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: l.namespace, Name: l.name}}
		l.fill(created, now)
		found, err = l.leases.Create(ctx, created, metav1.CreateOptions{})
		return err == nil && l.see(found)
	}
	if err != nil || !l.see(found) && !l.free() {
		return false
	}
	wanted := found.DeepCopy()
	l.fill(wanted, now)
	// Whoever was faster has changed the resource version.
	found, err = l.leases.Update(ctx, wanted, metav1.UpdateOptions{})
	return err == nil && l.see(found)
}

// fill makes the Lease this agent's.
func (l *lease) fill(of *coordinationv1.Lease, now metav1.MicroTime) {
	if holder(of) != l.identity {
		transitions := int32(0)
		if of.Spec.LeaseTransitions != nil {
			transitions = *of.Spec.LeaseTransitions + 1
		}
		of.Spec.HolderIdentity, of.Spec.AcquireTime, of.Spec.LeaseTransitions = &l.identity, &now, &transitions
	}
	seconds := int32(l.terms.duration.Seconds())
	of.Spec.LeaseDurationSeconds, of.Spec.RenewTime = &seconds, &now
}

// see takes in the Lease, and says whether it is this agent's.
func (l *lease) see(found *coordinationv1.Lease) bool {
	if l.last == nil || l.last.UID != found.UID || l.last.ResourceVersion != found.ResourceVersion {
		l.last, l.changed = found, time.Now()
	}
	return l.mine()
}

func (l *lease) mine() bool { return l.last != nil && holder(l.last) == l.identity }

// free says whether the Lease that was last seen may be taken.
func (l *lease) free() bool {
	if holder(l.last) == "" {
		return true
	}
	duration := l.terms.duration
	if seconds := l.last.Spec.LeaseDurationSeconds; seconds != nil {
		duration = time.Duration(*seconds) * time.Second
	}
	return time.Since(l.changed) >= duration
}

// release lets the next agent have the Lease at once. If that fails, it has it later.
func (l *lease) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, l.terms.pause)
	defer cancel()
	nobody, now := "", metav1.NowMicro()
	given := l.last.DeepCopy()
	given.Spec.HolderIdentity, given.Spec.RenewTime = &nobody, &now
	if found, err := l.leases.Update(ctx, given, metav1.UpdateOptions{}); err == nil {
		l.see(found)
	}
}

func holder(of *coordinationv1.Lease) string {
	if of.Spec.HolderIdentity == nil {
		return ""
	}
	return *of.Spec.HolderIdentity
}
