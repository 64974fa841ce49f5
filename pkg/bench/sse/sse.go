// SPDX-License-Identifier: Apache-2.0

// Package sse reads the data of server-sent events (WHATWG HTML, section 9.2.6)
// as they arrive.
package sse

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// MaxEvent is the largest event that is read, in bytes. A stream of tokens has
// events of a few hundred; more means that it is no such stream.
const MaxEvent = 1 << 20

// ErrTooLarge is returned for an event beyond MaxEvent.
var ErrTooLarge = errors.New("server-sent event is larger than 1 MiB")

// Reader reads events one at a time.
type Reader struct {
	r *bufio.Reader
	// afterCR is set when the last line ended in CR: a LF right after it belongs to
	// that end. Looking ahead for it would wait for the next event.
	afterCR bool
	begun   bool
}

// NewReader reads from r.
func NewReader(r io.Reader) *Reader { return &Reader{r: bufio.NewReader(r)} }

// Next returns the data of the next event that has any, its lines joined by LF.
// At the end of the stream it returns io.EOF; an event that no empty line has
// ended by then is dropped, as the standard says.
func (s *Reader) Next() (string, error) {
	var data strings.Builder
	has := false
	for {
		line, err := s.line()
		if err != nil {
			return "", err
		}
		if line == "" {
			if has {
				return data.String(), nil
			}
			continue
		}
		field, value, _ := strings.Cut(line, ":")
		if field != "data" {
			continue // a comment, or a field without meaning here
		}
		if has {
			data.WriteByte('\n')
		}
		has = true
		data.WriteString(strings.TrimPrefix(value, " "))
		if data.Len() > MaxEvent {
			return "", ErrTooLarge
		}
	}
}

// line reads up to LF, CR or CRLF. A last line without an end is io.EOF.
func (s *Reader) line() (string, error) {
	var line []byte
	for {
		b, err := s.r.ReadByte()
		if errors.Is(err, io.EOF) {
			return "", io.EOF
		}
		if err != nil {
			return "", fmt.Errorf("read event stream: %w", err)
		}
		if s.afterCR {
			s.afterCR = false
			if b == '\n' {
				continue
			}
		}
		if b == '\n' || b == '\r' {
			s.afterCR = b == '\r'
			text := string(line)
			if !s.begun {
				s.begun = true
				text = strings.TrimPrefix(text, "\ufeff")
			}
			return text, nil
		}
		if line = append(line, b); len(line) > MaxEvent {
			return "", ErrTooLarge
		}
	}
}
