// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/iotest"
)

func TestATagTellsEveryChangeAndNothingElse(t *testing.T) {
	t.Parallel()
	tags, err := newTagger()
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{0, 1, 15, 16, 17, tagStep - 1, tagStep, tagStep + 1, 2 * tagStep, 3*tagStep + 5} {
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		want := tags.of(data)
		for name, r := range map[string]io.Reader{"at once": bytes.NewReader(data), "in halves": iotest.HalfReader(bytes.NewReader(data)), "with the end": iotest.DataErrReader(bytes.NewReader(data))} {
			var copied bytes.Buffer
			got, n, err := tags.read(r, &copied)
			if err != nil || n != int64(size) || got != want || !bytes.Equal(copied.Bytes(), data) {
				t.Errorf("%d bytes read %s: tag %x of %d bytes (%v), want %x", size, name, got, n, err, want)
			}
		}
		differ := map[string][]byte{"a byte more": append(slices.Clone(data), 0)}
		if size > 0 {
			differ["a byte less"] = data[:size-1]
			for _, at := range []int{0, size / 2, size - 1} {
				changed := slices.Clone(data)
				changed[at] ^= 1 << rng.IntN(8)
				differ["one bit"] = changed
			}
		}
		if size >= 2*tagStep {
			differ["two steps in the other order"] = slices.Concat(data[tagStep:2*tagStep], data[:tagStep], data[2*tagStep:])
		}
		for name, other := range differ {
			if tags.of(other) == want {
				t.Errorf("%d bytes and %s have the same tag", size, name)
			}
		}
	}
	if another, err := newTagger(); err != nil || another.of([]byte("x")) == tags.of([]byte("x")) {
		t.Errorf("two processes make the same tags (%v)", err)
	}
	if _, _, err := tags.read(iotest.ErrReader(io.ErrClosedPipe), io.Discard); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("an error of the disk is %v", err)
	}
}
