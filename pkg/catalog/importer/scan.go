// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sort"
)

// scanned is a file as strict JSON: what Python writes for numbers that JSON
// does not have is null.
type scanned struct {
	data []byte
	// shifts are positions in data behind which it is longer (or shorter) than the
	// file, with the difference so far.
	shifts []shift
}

// maxShifts is the most numbers that JSON does not have, in one file.
const maxShifts = 1 << 20

type shift struct{ at, difference int64 }

// original turns an offset in the data into one in the file.
func (s scanned) original(offset int64) int64 {
	n := sort.Search(len(s.shifts), func(n int) bool { return s.shifts[n].at > offset })
	if n == 0 {
		return offset
	}
	return offset - s.shifts[n-1].difference
}

// syntax says where the JSON is broken.
func (s scanned) syntax(file string, err error, dec *json.Decoder) error {
	var told *FileError
	if errors.As(err, &told) {
		return told
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &FileError{File: file, Offset: s.original(int64(len(s.data))), Problem: "the file ends in the middle of the JSON; it was not written completely, so save it again"}
	}
	// The decoder's own offset is that of the value it was reading.
	offset := dec.InputOffset()
	var whole json.RawMessage
	var syntax *json.SyntaxError
	if errors.As(json.Unmarshal(s.data, &whole), &syntax) {
		offset = syntax.Offset - 1
	}
	return &FileError{File: file, Offset: s.original(offset), Problem: fmt.Sprintf("not JSON: %v; import the file as the benchmark saved it", err)}
}

// scan bounds the nesting and replaces NaN, Infinity and -Infinity, which
// Python's json writes for such floats, by null.
func scan(file string, data []byte) (scanned, error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	out := scanned{data: data}
	var replaced []byte
	kept, depth := 0, 0
	for n := 0; n < len(data); n++ {
		switch c := data[n]; c {
		case '"':
			n = stringEnd(data, n)
		case '[', '{':
			if depth++; depth > MaxDepth {
				return scanned{}, &FileError{File: file, Offset: int64(n), Problem: fmt.Sprintf("nested deeper than %d levels, which no benchmark writes; check that this is a result file", MaxDepth)}
			}
		case ']', '}':
			depth--
		case 'N', 'I', '-':
			for _, word := range []string{"NaN", "Infinity", "-Infinity"} {
				if bytes.HasPrefix(data[n:], []byte(word)) {
					replaced = append(append(replaced, data[kept:n]...), "null"...)
					n += len(word) - 1
					kept = n + 1
					if len(out.shifts) == maxShifts {
						return scanned{}, &FileError{File: file, Offset: int64(n), Problem: fmt.Sprintf("more than %d NaN or Infinity, which no benchmark writes; check that this is a result file", maxShifts)}
					}
					out.shifts = append(out.shifts, shift{at: int64(len(replaced)), difference: int64(len(replaced) - kept)})
					break
				}
			}
		}
	}
	if replaced != nil {
		replaced = append(replaced, data[kept:]...)
		out.data = replaced
	}
	return out, nil
}

// stringEnd is the position of the quote that ends the string which begins at
// start, or the end of the data.
func stringEnd(data []byte, start int) int {
	for n := start + 1; n < len(data); n++ {
		switch data[n] {
		case '\\':
			n++
		case '"':
			return n
		}
	}
	return len(data)
}
