// SPDX-License-Identifier: Apache-2.0

package progress

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
)

// castagnoli is the CRC that processors compute.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sumLength is of "1a2b3c4d ", which every line begins with.
const sumLength = 9

// frame writes a line: checksum, space, JSON, line feed.
func frame(l line) ([]byte, error) {
	b, err := json.Marshal(l)
	if err != nil {
		return nil, fmt.Errorf("write a checkpoint line: %w", err)
	}
	return fmt.Appendf(nil, "%s %s\n", checksum(b), b), nil
}

// checksum is eight hexadecimal digits.
func checksum(b []byte) string { return fmt.Sprintf("%08x", crc32.Checksum(b, castagnoli)) }

// Read reads as much of a file as is whole, which is all of it but a last line
// that was being written, and says how many bytes that is. What comes after the
// first damaged line is not trusted. The error is for a file whose lines are whole
// and contradict each other: that one is not ours to cut.
func Read(file []byte) (*State, int, error) {
	state := newState(Config{})
	whole := 0
	for first := true; ; first = false {
		body, n := unframe(file[whole:])
		if n == 0 {
			return state, whole, nil
		}
		l, err := decode(body)
		if err == nil {
			err = state.apply(l, first)
		}
		if err != nil {
			return nil, whole, fmt.Errorf("at byte %d: %w", whole, err)
		}
		whole += n
	}
}

// unframe returns the JSON of the first line and the line's whole length, which is
// 0 when the line is not whole.
func unframe(b []byte) (body []byte, length int) {
	end := bytes.IndexByte(b, '\n')
	if end < sumLength || b[sumLength-1] != ' ' {
		return nil, 0
	}
	body = b[sumLength:end]
	if string(b[:sumLength-1]) != checksum(body) {
		return nil, 0
	}
	return body, end + 1
}
