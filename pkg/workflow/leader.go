// SPDX-License-Identifier: Apache-2.0

package workflow

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

const (
	// LeaseName is the Lease of the agent that resumes workflows.
	LeaseName = "spotbench-workflow-resume"
	// lookEvery is how often the leader looks at what is suspended, and at a workflow
	// some hold of which cannot have ended only every unripeEvery.
	lookEvery   = time.Second
	unripeEvery = 5 * time.Second
	// crdEvery is how often Argo is looked for where it is not installed.
	crdEvery = time.Minute
)

// Run watches the suspended workflows and, while there are any and eligible says that
// this agent may, stands for the Lease and resumes them. No agent asks for the Lease
// while nothing is suspended. Run ends with ctx.
func (k *Keeper) Run(ctx context.Context, eligible func() bool) {
	if !k.awaitArgo(ctx) {
		return
	}
	k.watch(ctx)
	var standing *campaign
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		switch want := eligible() && !k.sightings.none(); {
		case want && standing == nil:
			standing = k.stand(ctx)
		case !want && standing != nil:
			standing.end()
			standing = nil
		}
		select {
		case <-tick.C:
		case <-k.sightings.news:
		case <-ctx.Done():
			if standing != nil {
				standing.end()
			}
			return
		}
	}
}

// awaitArgo waits until the cluster knows workflows, saying once that it does not.
func (k *Keeper) awaitArgo(ctx context.Context) bool {
	for said := ""; ; {
		err := k.cluster.Serves(ctx, Resource.GroupVersion())
		if err == nil {
			k.log.Info("watching for workflows that are suspended because of interruptions")
			return true
		}
		text, pause := err.Error(), defaultTerms.pause
		if apierrors.IsNotFound(err) {
			text, pause = "this cluster has no Argo Workflows: no workflow is suspended on a notice", crdEvery
		}
		if text != said {
			said = text
			k.log.Info("Argo Workflows is looked for again", "every", pause, "reason", text)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return false
		}
	}
}

// watch keeps the sightings up to date. Only the metadata of suspended workflows is
// held in memory.
func (k *Keeper) watch(ctx context.Context) {
	var said string
	_, controller := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: &cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
				o.LabelSelector = Label
				list, err := k.metadata.List(ctx, o)
				if err == nil {
					said = ""
				} else if err.Error() != said {
					said = err.Error()
					k.log.Warn("the suspended workflows cannot be listed", "error", err)
				}
				return list, err
			},
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				o.LabelSelector = Label
				return k.metadata.Watch(ctx, o)
			},
		},
		ObjectType: &metav1.PartialObjectMetadata{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { k.sightings.see(o) },
			UpdateFunc: func(_, o any) { k.sightings.see(o) },
			DeleteFunc: func(o any) { k.sightings.forget(o) },
		},
	})
	go controller.RunWithContext(ctx)
}

// campaign is this agent's standing for the Lease.
type campaign struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// end gives the Lease up, or no longer asks for it.
func (c *campaign) end() {
	c.cancel()
	<-c.done
}

func (k *Keeper) stand(ctx context.Context) *campaign {
	ctx, cancel := context.WithCancel(ctx)
	c := &campaign{cancel: cancel, done: make(chan struct{})}
	lease := &lease{leases: k.cluster.Leases(k.namespace), namespace: k.namespace, name: LeaseName, identity: k.node, terms: defaultTerms}
	go func() {
		defer close(c.done)
		lease.run(ctx, k.lead)
	}()
	return c
}

// lead resumes what can be resumed until ctx ends. Should another agent believe that
// it leads too, the first patch wins and the second finds nothing left to do.
func (k *Keeper) lead(ctx context.Context) {
	k.log.Info("this agent resumes suspended workflows", "lease", k.namespace+"/"+LeaseName)
	k.leading.Set(1)
	defer k.leading.Set(0)
	looked := map[types.NamespacedName]time.Time{}
	said := map[types.NamespacedName]string{}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		keys := k.sightings.keys()
		maps.DeleteFunc(looked, func(key types.NamespacedName, _ time.Time) bool { return !slices.Contains(keys, key) })
		maps.DeleteFunc(said, func(key types.NamespacedName, _ string) bool { return !slices.Contains(keys, key) })
		for _, key := range keys {
			if !k.sightings.ripe(key) && time.Since(looked[key]) < unripeEvery {
				continue
			}
			looked[key] = time.Now()
			if err := k.resume(ctx, key); err != nil && ctx.Err() == nil && err.Error() != said[key] {
				said[key] = err.Error()
				k.log.Warn("whether the workflow can be resumed is asked again", "workflow", key, "error", err)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// sightings are the holds that this agent knows of and since when, by its own clock:
// the clock of the node that wrote them may be wrong, and is not needed.
type sightings struct {
	mu    *sync.Mutex
	holds map[types.NamespacedName]map[sighting]observed
	news  chan struct{}
}

// sighting is what tells one hold of a workflow from another.
type sighting struct{ node, notice string }

type observed struct {
	since time.Time
	hold  Hold
}

func newSightings() sightings {
	return sightings{mu: &sync.Mutex{}, holds: map[types.NamespacedName]map[sighting]observed{}, news: make(chan struct{}, 1)}
}

func (s *sightings) see(object any) {
	m, ok := object.(*metav1.PartialObjectMetadata)
	if !ok {
		return
	}
	key := types.NamespacedName{Namespace: m.Namespace, Name: m.Name}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	holds := map[sighting]observed{}
	for name, value := range m.Annotations {
		node, ok := strings.CutPrefix(name, AnnotationPrefix)
		if !ok {
			continue
		}
		hold, _ := ParseHold(value)
		which := sighting{node, hold.Notice}
		since := now
		if known, ok := s.holds[key][which]; ok {
			since = known.since
		}
		holds[which] = observed{since, hold}
	}
	s.holds[key] = holds
	select {
	case s.news <- struct{}{}:
	default: // there are unread news already
	}
}

func (s *sightings) forget(object any) {
	if last, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = last.Obj
	}
	if m, ok := object.(*metav1.PartialObjectMetadata); ok {
		key := types.NamespacedName{Namespace: m.Namespace, Name: m.Name}
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.holds, key)
	}
}

// since is how long the hold has been known; 0 for one that is not.
func (s *sightings) since(key types.NamespacedName, node, notice string) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, ok := s.holds[key][sighting{node, notice}]
	if !ok {
		return 0
	}
	return time.Since(known.since)
}

// ripe says whether every hold of the workflow is released or has to be given up.
func (s *sightings) ripe(key types.NamespacedName) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.holds[key] {
		if !o.hold.Released && time.Since(o.since) < o.hold.window()+GiveUpAfter {
			return false
		}
	}
	return true
}

func (s *sightings) keys() []types.NamespacedName {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.holds))
}

func (s *sightings) none() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.holds) == 0
}
