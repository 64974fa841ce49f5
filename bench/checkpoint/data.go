// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// fill makes what a run that fine-tunes and benchmarks a model leaves in its checkpoint
// directory: 70 % weights (bf16, normally distributed) in shards, 10 % that is
// compressed already (random), 20 % JSON lines of requests.
func fill(dir string, size int64, seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // data for a benchmark
	const shards = 8
	for i := range shards {
		if err := writeFile(filepath.Join(dir, fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, shards)), size*7/10/shards, weights(rng)); err != nil {
			return err
		}
	}
	if err := writeFile(filepath.Join(dir, "dataset.tar.zst"), size/10, noise(rng)); err != nil {
		return err
	}
	for i := range 4 {
		if err := writeFile(filepath.Join(dir, "requests", fmt.Sprintf("sweep-%d.jsonl", i)), size/5/4, lines(rng)); err != nil {
			return err
		}
	}
	return nil
}

// writeFile makes a file of a size from pieces.
func writeFile(path string, size int64, piece func() []byte) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriterSize(f, 1<<20)
	for size > 0 {
		data := piece()
		data = data[:min(int64(len(data)), size)]
		if _, err := w.Write(data); err != nil {
			return err
		}
		size -= int64(len(data))
	}
	return w.Flush()
}

func weights(rng *rand.Rand) func() []byte {
	// Drawing normal variates takes longer than all that is measured: a table of them
	// is drawn from.
	table := make([]uint16, 1<<16)
	for i := range table {
		table[i] = uint16(math.Float32bits(float32(rng.NormFloat64()*0.02)) >> 16)
	}
	data := make([]byte, 1<<20)
	return func() []byte {
		for i := 0; i < len(data); i += 8 {
			r := rng.Uint64()
			for j := range 4 {
				binary.LittleEndian.PutUint16(data[i+2*j:], table[r>>(16*j)&0xffff])
			}
		}
		return data
	}
}

func noise(rng *rand.Rand) func() []byte {
	data := make([]byte, 1<<20)
	return func() []byte {
		for i := 0; i < len(data); i += 8 {
			binary.LittleEndian.PutUint64(data[i:], rng.Uint64())
		}
		return data
	}
}

func lines(rng *rand.Rand) func() []byte {
	n := 0
	var data []byte
	return func() []byte {
		data = data[:0]
		for range 100 {
			n++
			data = fmt.Appendf(data, `{"request":%d,"started":"2026-01-01T%02d:%02d:%02d.%06dZ","prompt_tokens":%d,"output_tokens":%d,"ttft_ms":%.3f,"itl_ms":[%.3f,%.3f,%.3f,%.3f],"e2el_ms":%.3f,"error":null}`+"\n",
				n, n/3600%24, n/60%60, n%60, rng.IntN(1e6), rng.IntN(4096), rng.IntN(1024), 20+rng.ExpFloat64()*30,
				8+rng.Float64(), 8+rng.Float64(), 8+rng.Float64(), 8+rng.Float64(), 500+rng.ExpFloat64()*2000)
		}
		return data
	}
}

// change writes 1 % of the bytes anew: half of it in one place of each shard of the
// weights, half as new lines at the end of a log.
func change(dir string, size int64, seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 2)) //nolint:gosec // data for a benchmark
	shards, err := filepath.Glob(filepath.Join(dir, "model-*"))
	if err != nil {
		return err
	}
	for _, shard := range shards {
		if err := overwrite(shard, size/200/int64(len(shards)), rng); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(filepath.Join(dir, "requests", "sweep-3.jsonl"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	next := lines(rng)
	for left := size / 200; left > 0; {
		data := next()
		if _, err := f.Write(data); err != nil {
			return errors.Join(err, f.Close())
		}
		left -= int64(len(data))
	}
	return f.Close()
}

func overwrite(path string, size int64, rng *rand.Rand) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	next := weights(rng)
	w := io.NewOffsetWriter(f, rng.Int64N(info.Size()-size))
	for size > 0 {
		data := next()
		data = data[:min(int64(len(data)), size)]
		if _, err := w.Write(data); err != nil {
			return errors.Join(err, f.Close())
		}
		size -= int64(len(data))
	}
	return f.Close()
}
