// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"context"
	"errors"
	"fmt"
)

// A run is written by one writer at a time: the pod that restored it last. Each
// writer makes an object under the run's _writers/ with the next number. A save
// lists the generations first, looks at the writers next, and then writes the
// manifest under the number that follows those it saw. If another writer took
// over and saved in between, that number is taken. So the late save of a machine
// that was given up never comes after what its successor has saved.

// claim makes the writer the run's, unless it is already.
func (s *Store) claim(ctx context.Context, run, writer string) error {
	for range attempts {
		newest, name, _, err := s.writers(ctx, run, writer)
		if err != nil || name == writer {
			return err
		}
		err = s.objects.create(ctx, writerPrefix(run)+numbered(newest+1), []byte(writer))
		if err == nil || !errors.Is(err, errExists) {
			return err
		}
	}
	return fmt.Errorf("other writers of %s take over again and again", run)
}

// mayWrite says whether the run is the writer's. One that was never heard of takes
// over: it is a new pod that had nothing restored.
func (s *Store) mayWrite(ctx context.Context, run, writer string) error {
	_, name, before, err := s.writers(ctx, run, writer)
	switch {
	case err != nil || name == writer:
		return err
	case before:
		return fmt.Errorf("%w: %s, not %s", ErrSuperseded, name, writer)
	}
	return s.claim(ctx, run, writer)
}

// writers is the newest writer of the run, and whether this one was it before.
func (s *Store) writers(ctx context.Context, run, writer string) (number int64, newest string, before bool, err error) {
	found, err := s.numberedObjects(ctx, writerPrefix(run))
	if err != nil {
		return 0, "", false, fmt.Errorf("list the writers of %s: %w", run, err)
	}
	for i, n := range newestFirst(found) {
		name, err := s.objects.get(ctx, found[n].name, nil, maxWriter)
		if err != nil {
			return 0, "", false, fmt.Errorf("writers of %s: %w", run, err)
		}
		if i == 0 {
			number, newest = n, string(name)
		}
		if string(name) == writer {
			return number, newest, true, nil
		}
	}
	return number, newest, false, nil
}

// maxWriter bounds the name of a writer, in bytes.
const maxWriter = 253
