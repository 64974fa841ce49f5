// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/spotbench/spotbench/pkg/catalog/importer"
)

// Encoders and decoders take a few hundred kilobytes each to make; one of either
// is shared, which their whole-buffer calls allow.
var (
	packer = sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2), zstd.WithLowerEncoderMem(true))
		if err != nil {
			panic(err) // the options are constants
		}
		return e
	})
	unpacker = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(2*importer.MaxBytes), zstd.WithDecoderLowmem(true))
		if err != nil {
			panic(err) // the options are constants
		}
		return d
	})
)

// pack compresses a file for the database.
func pack(content []byte) []byte { return packer().EncodeAll(content, nil) }

func unpack(packed []byte) ([]byte, error) {
	content, err := unpacker().DecodeAll(packed, nil)
	if err != nil {
		return nil, fmt.Errorf("a stored file is damaged: %w", err)
	}
	return content, nil
}
