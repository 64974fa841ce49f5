// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"errors"

	"github.com/klauspost/compress/zstd"
)

// codec compresses; it is safe for concurrent use.
type codec struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

// newCodec makes a codec that expands nothing to more than limit bytes, whatever an
// object says of itself.
func newCodec(limit uint64) (codec, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(parallel),
		zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return codec{}, err
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(parallel), zstd.WithDecoderMaxMemory(limit), zstd.WithDecoderLowmem(true))
	if err != nil {
		return codec{}, errors.Join(err, enc.Close())
	}
	return codec{enc: enc, dec: dec}, nil
}

// compress appends the compressed data to buffer.
func (c codec) compress(buffer, data []byte) []byte { return c.enc.EncodeAll(data, buffer) }

// expand appends what was compressed to buffer.
func (c codec) expand(buffer, data []byte) ([]byte, error) { return c.dec.DecodeAll(data, buffer) }

func (c codec) close() error {
	c.dec.Close()
	return c.enc.Close()
}

// shrink compresses data into buffer if that saves enough to be worth expanding it
// later. It looks at samples first: model weights do not get smaller.
func (c codec) shrink(buffer, data []byte) ([]byte, bool) {
	if len(data) > 4*samples*sampleSize {
		before, after := 0, 0
		for i := range samples {
			sample := data[i*(len(data)-sampleSize)/(samples-1):][:sampleSize]
			before += len(sample)
			after += len(c.compress(buffer, sample))
		}
		if !worthwhile(before, after) {
			return nil, false
		}
	}
	compressed := c.compress(buffer, data)
	return compressed, worthwhile(len(data), len(compressed))
}

const (
	samples    = 4
	sampleSize = 16 << 10 // bytes
)

// worthwhile asks for a tenth.
func worthwhile(before, after int) bool { return after < before-before/10 }
