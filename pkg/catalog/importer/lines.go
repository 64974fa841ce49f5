// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"bytes"
	"encoding/json"
	"iter"
	"runtime"
	"slices"
	"sync"
)

// fewestPerWorker is how many documents make it worth while to read them by one more
// goroutine, and mostWorkers how many of those there are: imports are not all that a
// catalog does.
const (
	fewestPerWorker = 256
	mostWorkers     = 4
)

// parsePlain reads a file that is nothing but whole objects, one after the other, as
// bulk imports are: by several goroutines, and without keeping all of its fields at
// once. It gives up at whatever is out of the ordinary, and the way by encoding/json's
// decoder, which takes several times as long, says what that is.
func parsePlain(file string, clean scanned) (Parsed, bool) {
	documents := split(clean.data)
	if len(documents) < 2 || len(documents) > MaxResults {
		return Parsed{}, false
	}
	workers := max(1, min(len(documents)/fewestPerWorker, mostWorkers, runtime.GOMAXPROCS(0)))
	parts, sound := make([]Parsed, workers), make([]bool, workers)
	var all sync.WaitGroup
	for n := range workers {
		all.Go(func() {
			mine := documents[n*len(documents)/workers : (n+1)*len(documents)/workers]
			if results, ok := exportedLines(file, clean.data, mine); ok {
				parts[n], sound[n] = Parsed{Format: Exported, Results: results}, true
				return
			}
			whole := true
			parsed, err := parseDocuments(file, plainDocuments(clean, mine, &whole), nil)
			parts[n], sound[n] = parsed, whole && err == nil
		})
	}
	all.Wait()
	parsed := Parsed{Format: parts[0].Format}
	for n, part := range parts {
		if !sound[n] || part.Format != parsed.Format || len(parsed.Results)+len(part.Results) > MaxResults {
			return Parsed{}, false
		}
		parsed.Results = append(slices.Grow(parsed.Results, len(part.Results)), part.Results...)
	}
	return parsed, true
}

// span is where something is in a text.
type span struct{ start, end int }

// split finds the objects in a text of nothing else; none, if there is something else.
func split(data []byte) (documents []span) {
	for at := space(data, 0); at < len(data); at = space(data, at) {
		end := valueEnd(data, at)
		if data[at] != '{' || end < 0 || len(documents) == MaxResults {
			return nil
		}
		documents = append(documents, span{at, end})
		at = end
	}
	return documents
}

// plainDocuments are the fields of the objects, one object at a time. whole is false
// after the first one that is no JSON, or that read would refuse.
func plainDocuments(clean scanned, documents []span, whole *bool) iter.Seq[map[string]field] {
	return func(yield func(map[string]field) bool) {
		budget := maxAllFields / mostWorkers
		for _, d := range documents {
			// Behind this, quotes and braces tell where values are.
			if !json.Valid(clean.data[d.start:d.end]) {
				*whole = false
				return
			}
			fields, ok := plainFields(clean, d)
			if budget -= len(fields); !ok || budget < 0 {
				*whole = false
				return
			}
			if !yield(fields) {
				return
			}
		}
	}
}

// plainFields are the fields of an object that is known to be JSON.
func plainFields(clean scanned, document span) (map[string]field, bool) {
	data := clean.data
	fields := make(map[string]field, 32)
	for at := space(data, document.start+1); data[at] != '}'; at = space(data, at) {
		if data[at] == ',' {
			at = space(data, at+1)
		}
		end := valueEnd(data, at)
		var name string
		if quoted := data[at:end]; bytes.IndexByte(quoted, '\\') >= 0 || slices.ContainsFunc(quoted, func(c byte) bool { return c >= 0x80 }) {
			if json.Unmarshal(quoted, &name) != nil {
				return nil, false
			}
		} else {
			name = string(quoted[1 : len(quoted)-1])
		}
		start := space(data, space(data, end)+1) // behind the colon
		end = valueEnd(data, start)
		fields[name] = field{raw: data[start:end], offset: clean.original(int64(start))}
		if len(fields) > maxFields {
			return nil, false
		}
		at = end
	}
	return fields, true
}

// space is the position of the first character from at on that is no white space.
func space(data []byte, at int) int {
	for at < len(data) && (data[at] == ' ' || data[at] == '\n' || data[at] == '\t' || data[at] == '\r') {
		at++
	}
	return at
}

// valueEnd is the position behind the JSON value that begins at a position, or -1 if
// it has no end. It goes by quotes, braces and what may follow a value alone.
func valueEnd(data []byte, at int) int {
	depth := 0
	for n := at; n < len(data); n++ {
		switch data[n] {
		case '"':
			if n = stringEnd(data, n); n == len(data) {
				return -1
			}
			if depth == 0 {
				return n + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return n
			}
			if depth--; depth == 0 {
				return n + 1
			}
		case ',', ' ', '\n', '\t', '\r', ':':
			if depth == 0 {
				return n
			}
		}
	}
	return -1
}
