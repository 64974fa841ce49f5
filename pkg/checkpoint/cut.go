// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"errors"
	"io"
)

// Files are cut where their content says so, not at fixed offsets, so that bytes
// that are put in or taken out change the chunks around them and no others. A cut is
// where the rolling hash of the last 64 bytes has cutBits zeros: by chance once in
// 1 MiB. The first minChunk bytes of a chunk are not looked at, which makes chunks
// 2 MiB on the average and halves the work.
const (
	minChunk = 1 << 20
	maxChunk = 4 << 20
	cutBits  = 20
	// readStep is how much is read and looked at, at a time.
	readStep = 256 << 10
)

// gear gives each byte a random number. It is part of the format: another table cuts
// elsewhere, and everything would be sent anew.
var gear = func() (table [256]uint64) {
	// The first outputs of SplitMix64.
	state := uint64(0)
	for i := range table {
		state += 0x9e3779b97f4a7c15
		z := state
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		table[i] = z ^ z>>31
	}
	return table
}()

// readChunk reads the chunk that begins at an offset into buffer, which has room for
// maxChunk; size is where the file ends. A file that has become shorter gives a short
// chunk, or none.
func readChunk(f io.ReaderAt, buffer []byte, offset, size int64) ([]byte, error) {
	end := int(min(maxChunk, size-offset))
	n, err := readAt(f, buffer[:min(minChunk, end)], offset)
	if err != nil || n < min(minChunk, end) {
		return buffer[:n], err
	}
	var hash uint64
	for n < end {
		step := min(readStep, end-n)
		got, err := readAt(f, buffer[n:n+step], offset+int64(n))
		if err != nil {
			return nil, err
		}
		var at int
		if at, hash = findCut(buffer[n:n+got], hash); at < got || got < step {
			return buffer[:n+at], nil
		}
		n += step
	}
	return buffer[:n], nil
}

// findCut is the length of data up to and with the byte after which to cut, or its
// whole length; hash is that of the bytes before.
func findCut(data []byte, hash uint64) (int, uint64) {
	for i, b := range data {
		hash = hash<<1 + gear[b]
		if hash>>(64-cutBits) == 0 {
			return i + 1, hash
		}
	}
	return len(data), hash
}

// readAt reads as much of buffer as there is.
func readAt(f io.ReaderAt, buffer []byte, offset int64) (int, error) {
	n, err := f.ReadAt(buffer, offset)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}
