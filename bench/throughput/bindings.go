// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// bindings has when pods were bound, as everybody else in the cluster sees it.
type bindings struct {
	stop context.CancelFunc

	mu   sync.Mutex
	pods map[string]bool
	at   []time.Time
}

func watchBindings(ctx context.Context, client kubernetes.Interface) (*bindings, error) {
	ctx, stop := context.WithCancel(ctx)
	b := &bindings{stop: stop, pods: map[string]bool{}}
	selected := informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.FieldSelector = "spec.nodeName!=" })
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace), selected)
	informer := factory.Core().V1().Pods().Informer()
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: b.see}); err != nil {
		stop()
		return nil, fmt.Errorf("watch pods: %w", err)
	}
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		stop()
		return nil, fmt.Errorf("watch pods: %w", ctx.Err())
	}
	return b, nil
}

func (b *bindings) see(obj any) {
	now := time.Now()
	pod, ok := obj.(*v1.Pod)
	if !ok {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.pods[pod.Name] {
		b.pods[pod.Name] = true
		b.at = append(b.at, now)
	}
}

// stalled is how long no pod may be bound before it is given up.
const stalled = time.Minute

// wait until so many are bound.
func (b *bindings) wait(ctx context.Context, s *running, want int) error {
	last, since := 0, time.Now()
	for {
		b.mu.Lock()
		n := len(b.at)
		b.mu.Unlock()
		if n >= want {
			return nil
		}
		if err := s.ended(); err != nil {
			return err
		}
		if n > last {
			last, since = n, time.Now()
		}
		if time.Since(since) > stalled {
			return fmt.Errorf("%d of %d pods are bound and none for %s; the end of %s's log:\n%s", n, want, stalled, s.name, s.tail())
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// span is the time from one binding to another, counted from 0.
func (b *bindings) span(first, last int) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.at[last].Sub(b.at[first])
}
