// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// A generation is removed in two steps, so that a Save that builds on it elsewhere
// loses nothing. Its manifest is first moved aside (to _removed/), where it protects
// its chunks for removedFor. A chunk goes when no manifest in either place names it
// and it is older than orphanAge.
//
// A Save that builds on a generation looks, at most commitLimit before its own
// manifest is written, that the other is still in place. Whoever lists the manifests
// after that sees the one or the other, or both; whoever moved the old one has to
// wait twice as long before its chunks lose their protection. Chunks that a Save has
// sent or taken from one that was cut short are younger than
// resumable + saveLimit + commitLimit when its manifest is there. All ages are by the
// store's own clock.
const (
	commitLimit = 5 * time.Minute
	removedFor  = 10 * time.Minute
	saveLimit   = 90 * time.Minute
	resumable   = time.Hour
	orphanAge   = 3 * time.Hour
	// pruneStep bounds the moving of one manifest, and the time between the listing of
	// the manifests and that of those moved aside.
	pruneStep = time.Minute
	// writerAge is how long it is remembered who wrote a run before.
	writerAge = 30 * 24 * time.Hour
)

// Pruned is what Prune removed, or would.
type Pruned struct {
	// Generations, newest first.
	Generations []int64
	// Chunks, and the bytes that they had in the store. Those of a generation are
	// removed by a later Prune than the generation.
	Chunks int
	Bytes  int64
}

// Prune removes the generations of the run that are too many or too old, and chunks
// that no generation needs any more. The newest good one always stays. It removes
// nothing that a Save or a Restore of the newest generation, here or elsewhere,
// depends on. With dryRun it removes nothing at all.
func (s *Store) Prune(ctx context.Context, run string, dryRun bool) (Pruned, error) {
	if err := checkRun(run); err != nil {
		return Pruned{}, err
	}
	p := prune{s: s, run: run, dry: dryRun}
	if err := p.everything(ctx); err != nil {
		return p.pruned, fmt.Errorf("remove old checkpoints of %s: %w", run, err)
	}
	return p.pruned, nil
}

type prune struct {
	s      *Store
	run    string
	dry    bool
	pruned Pruned
}

func (p *prune) everything(ctx context.Context) error {
	now, err := p.s.clock(ctx, p.run)
	if err != nil {
		return err
	}
	if err := p.generations(ctx, now); err != nil {
		return err
	}
	aside, err := p.chunks(ctx, now)
	if err != nil {
		return err
	}
	// Last, so that what was cut short is done again.
	for _, o := range aside {
		if err := p.remove(ctx, o.name); err != nil {
			return err
		}
	}
	if err := p.writers(ctx, now); err != nil {
		return err
	}
	if d, ok := p.s.objects.(*directory); ok && !p.dry {
		return d.sweep(now.Add(-orphanAge))
	}
	return nil
}

// generations moves those aside that are too many or too old.
func (p *prune) generations(ctx context.Context, now time.Time) error {
	found, err := p.s.numberedObjects(ctx, manifestPrefix(p.run))
	if err != nil {
		return err
	}
	good := 0
	for _, n := range newestFirst(found) {
		old := good > 0 && p.s.maxAge > 0 && now.Sub(found[n].modified) > p.s.maxAge
		if good < p.s.keep && !old {
			switch _, err := p.s.load(ctx, p.run, n); {
			case err == nil || errors.Is(err, ErrKey):
				good++ // of another key's it cannot be told, and is assumed
			case !errors.Is(err, ErrDamaged):
				return err
			}
			continue // a damaged one is kept for whoever wants to know why, until it is old
		}
		p.pruned.Generations = append(p.pruned.Generations, n)
		if p.dry {
			continue
		}
		if err := p.moveAside(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

func (p *prune) moveAside(ctx context.Context, n int64) error {
	ctx, cancel := context.WithTimeoutCause(ctx, pruneStep, fmt.Errorf("moving a manifest took more than %s", pruneStep))
	defer cancel()
	data, err := p.s.objects.get(ctx, manifestName(p.run, n), nil, maxManifest)
	if errors.Is(err, ErrDamaged) {
		return p.remove(ctx, manifestName(p.run, n)) // gone, or no manifest at all
	}
	if err != nil {
		return err
	}
	if err := p.s.objects.put(ctx, removedPrefix(p.run)+numbered(n), data); err != nil {
		return err
	}
	return p.remove(ctx, manifestName(p.run, n))
}

// chunks removes those that nothing names, and returns the manifests moved aside
// that need not be kept any longer.
func (p *prune) chunks(ctx context.Context, now time.Time) (past []object, err error) {
	started := time.Now()
	numbers, err := p.s.numbers(ctx, p.run)
	if err != nil {
		return nil, err
	}
	aside, err := p.s.numberedObjects(ctx, removedPrefix(p.run))
	if err != nil {
		return nil, err
	}
	if took := time.Since(started); took > pruneStep {
		return nil, fmt.Errorf("listing the manifests took %s, more than %s", took, pruneStep)
	}
	needed := map[string]bool{}
	need := func(n int64, names ...string) error {
		var m manifest
		err := ErrDamaged
		for _, name := range names {
			if errors.Is(err, ErrDamaged) {
				m, err = p.s.loadFrom(ctx, name, p.run, n)
			}
		}
		if errors.Is(err, ErrDamaged) {
			return nil // nothing can be restored from it
		}
		for _, c := range m.chunks() {
			needed[chunkName(p.run, c)] = true
		}
		return err
	}
	for _, n := range numbers {
		// Another Prune may be moving it aside.
		if err := need(n, manifestName(p.run, n), removedPrefix(p.run)+numbered(n)); err != nil {
			return nil, err
		}
	}
	for _, n := range slices.Sorted(maps.Keys(aside)) {
		if now.Sub(aside[n].modified) > removedFor {
			past = append(past, aside[n])
		} else if err := need(n, aside[n].name); err != nil {
			return nil, err
		}
	}
	var orphans []object
	if err := p.s.objects.list(ctx, chunkPrefix(p.run), func(o object) {
		if !needed[o.name] && now.Sub(o.modified) > orphanAge {
			orphans = append(orphans, o)
		}
	}); err != nil {
		return nil, err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for _, o := range orphans {
		p.pruned.Chunks++
		p.pruned.Bytes += o.size
		group.Go(func() error { return p.remove(ctx, o.name) })
	}
	return past, group.Wait()
}

// writers forgets who wrote the run long ago.
func (p *prune) writers(ctx context.Context, now time.Time) error {
	found, err := p.s.numberedObjects(ctx, writerPrefix(p.run))
	if err != nil {
		return err
	}
	for i, n := range newestFirst(found) {
		if i > 0 && now.Sub(found[n].modified) > writerAge {
			if err := p.remove(ctx, found[n].name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *prune) remove(ctx context.Context, name string) error {
	if p.dry {
		return nil
	}
	if err := p.s.objects.remove(ctx, name); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

// clock is the time by the store's clock, on which the ages of objects depend.
func (s *Store) clock(ctx context.Context, run string) (time.Time, error) {
	prefix := run + "/_clock/"
	if err := s.objects.put(ctx, prefix+"now", []byte{0}); err != nil {
		return time.Time{}, fmt.Errorf("write to the store: %w", err)
	}
	var now time.Time
	if err := s.objects.list(ctx, prefix, func(o object) { now = o.modified }); err != nil {
		return time.Time{}, err
	}
	if now.IsZero() {
		return time.Time{}, errors.New("the store does not list what was just written")
	}
	return now, nil
}

// isThere says whether a generation is in place.
func (s *Store) isThere(ctx context.Context, run string, generation int64) (bool, error) {
	found, err := s.numberedObjects(ctx, manifestPrefix(run))
	_, there := found[generation]
	return there, err
}
