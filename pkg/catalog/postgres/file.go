// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/klauspost/compress/zstd"

	"github.com/spotbench/spotbench/pkg/catalog"
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

// File is the content of an import, as it came, and its name. Imports of builds
// that did not keep it are catalog.ErrNotFound.
func (s *Store) File(ctx context.Context, importID string) (name string, content []byte, err error) {
	id, err := uuid.Parse(importID)
	if err != nil {
		return "", nil, fmt.Errorf("import %q: %w", importID, catalog.ErrNotFound)
	}
	var w where
	w.compare("i.id =", id)
	w.within(ctx, "i.run_key")
	var packed []byte
	err = s.pool.QueryRow(ctx, "SELECT i.file, f.zstd FROM imports i JOIN files f ON f.import_id = i.id"+w.all(), w.args...).Scan(&name, &packed)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil, fmt.Errorf("file of import %q: %w", importID, catalog.ErrNotFound)
	}
	if err != nil {
		return "", nil, explain(err)
	}
	content, err = unpack(packed)
	return name, content, err
}
