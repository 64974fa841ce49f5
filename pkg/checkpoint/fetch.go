// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
)

// fetch reads chunks of a run.
type fetch struct {
	s    *Store
	run  string
	seal seal
}

func (s *Store) newFetch(run string) (fetch, error) {
	seal, err := newSeal(s.key, run)
	return fetch{s: s, run: run, seal: seal}, err
}

// chunk reads a chunk, makes sure that it is the one that was asked for, and hands it
// to use. One that is not is remembered, so that the next Save sends it anew.
func (f fetch) chunk(ctx context.Context, c chunk, use func([]byte) error) error {
	stored, content := takeBuffer(), takeBuffer()
	defer giveBuffer(stored)
	defer giveBuffer(content)
	name := chunkName(f.run, c)
	data, err := f.s.objects.get(ctx, name, (*stored)[:0], c.Size+int64(f.seal.overhead()))
	if err == nil {
		data, err = f.expand(c, data, name, (*content)[:0])
	}
	if errors.Is(err, ErrDamaged) {
		f.s.update(f.run, func(m *memory) {
			if m.damaged == nil {
				m.damaged = map[string]bool{}
			}
			m.damaged[c.Digest] = true
		})
	}
	if err != nil {
		return err
	}
	return use(data)
}

func (f fetch) expand(c chunk, data []byte, name string, buffer []byte) ([]byte, error) {
	data, err := f.seal.open(data, name)
	if err == nil && c.Zstd {
		data, err = f.s.chunks.expand(buffer, data)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: object %s: %w", ErrDamaged, name, err)
	}
	if int64(len(data)) != c.Size || f.seal.digest(data) != c.Digest {
		return nil, fmt.Errorf("%w: object %s: its content is not what its name says", ErrDamaged, name)
	}
	return data, nil
}

// Verify reads all of a generation and says whether it could be restored.
func (s *Store) Verify(ctx context.Context, run string, generation int64) error {
	if err := checkRun(run); err != nil {
		return err
	}
	m, err := s.load(ctx, run, generation)
	if err != nil {
		return err
	}
	fetch, err := s.newFetch(run)
	if err != nil {
		return err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	checked := map[chunk]bool{}
	for _, e := range m.Entries {
		for _, c := range e.Chunks {
			if checked[c] || groupCtx.Err() != nil {
				continue
			}
			checked[c] = true
			group.Go(func() error {
				if err := fetch.chunk(groupCtx, c, func([]byte) error { return nil }); err != nil {
					return fmt.Errorf("checkpoint %d of %s: file %q: %w", generation, run, e.Path, err)
				}
				return nil
			})
		}
	}
	return cmp.Or(group.Wait(), ctx.Err())
}
