// SPDX-License-Identifier: Apache-2.0

// Package importer reads benchmark result files. It finds a file's format from
// its content, reads what it is sure of in the units of the catalog, and refuses
// the rest by name. It never keeps generated texts.
package importer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// Bounds on a file.
const (
	// MaxBytes is the largest file, bytes, after decompression. vLLM's detailed
	// output of 10 000 requests has about 50 MB.
	MaxBytes = 64 << 20
	// MaxDepth is the deepest nesting of objects and lists. Real files have 8.
	MaxDepth = 32
	// MaxResults is the most results of one file.
	MaxResults = 10000
	// maxProvenance is the largest object "spotbench", bytes.
	maxProvenance = 1 << 20
)

// Parsed is what a file has.
type Parsed struct {
	Format  string
	Results []catalog.Result
	// Notes say what was left out, and why.
	Notes []string
}

// FileError is what is wrong with a file, and where.
type FileError struct {
	File string
	// Field is the path of the field, if the fault is in one.
	Field string
	// Offset is the byte at which the fault, or the outermost field's value, is.
	Offset int64
	// Problem says what is wrong and how to mend it.
	Problem string
}

func (e *FileError) Error() string {
	where := ""
	if e.Field != "" {
		where = fmt.Sprintf(", field %q", e.Field)
	}
	return fmt.Sprintf("file %q%s, at byte %d: %s", e.File, where, e.Offset, e.Problem)
}

// UnsupportedError is a file in a format, or a version of one, that is recognised
// but not read.
type UnsupportedError struct {
	File, Format string
	// Instead says which file to import.
	Instead string
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("file %q is in the format of %s, which is not read; %s", e.File, e.Format, e.Instead)
}

// Parse reads a result file. Its name only serves for messages.
func Parse(file string, data []byte) (Parsed, error) {
	if len(data) > MaxBytes {
		return Parsed{}, tooLarge(file)
	}
	if f := textFormat(data); f != nil {
		return f(file, data)
	}
	scanned, err := scan(file, data)
	if err != nil {
		return Parsed{}, err
	}
	if parsed, ok := parsePlain(file, scanned); ok {
		return parsed, nil
	}
	return parseAny(file, scanned)
}

// parseAny reads whatever is JSON, and says what is wrong with what cannot be read.
func parseAny(file string, clean scanned) (Parsed, error) {
	documents, notes, err := read(file, clean)
	if err != nil {
		return Parsed{}, err
	}
	return parseDocuments(file, slices.Values(documents), notes)
}

// parseDocuments reads objects that must all be of one format.
func parseDocuments(file string, documents iter.Seq[map[string]field], notes []string) (Parsed, error) {
	parsed := Parsed{Notes: notes}
	var errs []error
	n := -1
	for fields := range documents {
		n++
		f, err := detect(file, fields)
		if err != nil {
			return Parsed{}, err
		}
		if n > 0 && f.name != parsed.Format {
			return Parsed{}, &FileError{File: file, Offset: first(fields), Problem: fmt.Sprintf("it has results of %s and of %s; put each in a file of its own", parsed.Format, f.name)}
		}
		if n > 0 && !f.many {
			return Parsed{}, &FileError{File: file, Offset: first(fields), Problem: fmt.Sprintf("it has several documents of %s, which writes one; import each as a file of its own", f.name)}
		}
		parsed.Format = f.name
		parsed.Results = append(parsed.Results, f.parse(&reader{file: file, fields: fields, errs: &errs})...)
		if len(parsed.Results) > MaxResults {
			return Parsed{}, &FileError{File: file, Problem: fmt.Sprintf("it has more than the %d results a file may have; split it", MaxResults)}
		}
		if len(errs) >= maxErrors {
			break
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Parsed{}, err
	}
	if len(parsed.Results) == 0 {
		return Parsed{}, &FileError{File: file, Problem: "it has no results; import the file that the benchmark wrote at its end"}
	}
	return parsed, nil
}

// maxErrors is how many faults are told of one file.
const maxErrors = 20

func tooLarge(file string) error {
	return &FileError{File: file, Offset: MaxBytes, Problem: fmt.Sprintf("it has more than the %d bytes a result file may have; save it without each request's details (vLLM: without --save-detailed), or split it", MaxBytes)}
}

// first is where the document begins.
func first(fields map[string]field) int64 {
	at := int64(-1)
	for _, f := range fields {
		if at < 0 || f.offset < at {
			at = f.offset
		}
	}
	return max(at, 0)
}

// field is a top-level field's value and where it was.
type field struct {
	raw    json.RawMessage
	offset int64
}

// read takes the objects out of a file that has one, a list of them, or one a
// line. A last line that was cut off, as an interruption leaves it, is left out
// with a note where whole ones come before it.
func read(file string, clean scanned) (documents []map[string]field, notes []string, err error) {
	dec := json.NewDecoder(bytes.NewReader(clean.data))
	budget := maxAllFields
	for {
		start, err := dec.Token()
		if errors.Is(err, io.EOF) && len(documents) > 0 {
			return documents, nil, nil
		}
		if err != nil {
			return nil, nil, clean.syntax(file, err, dec)
		}
		switch {
		case start == json.Delim('[') && len(documents) == 0:
			if documents, err = readList(file, clean, dec, &budget); err != nil {
				return nil, nil, err
			}
			if rest := bytes.TrimSpace(clean.data[dec.InputOffset():]); len(rest) > 0 {
				return nil, nil, &FileError{File: file, Offset: clean.original(int64(bytes.LastIndex(clean.data, rest))), Problem: "something follows the JSON list; remove it"}
			}
			return documents, nil, nil
		case start == json.Delim('{'):
			fields, err := readFields(file, clean, dec, &budget)
			if err == nil {
				_, err = dec.Token()
			}
			if err != nil && len(documents) > 0 && cut(err) {
				return documents, []string{fmt.Sprintf("document %d is cut off in the middle and was left out", len(documents)+1)}, nil
			}
			if err != nil {
				return nil, nil, clean.syntax(file, err, dec)
			}
			if documents = append(documents, fields); len(documents) > MaxResults {
				return nil, nil, &FileError{File: file, Problem: fmt.Sprintf("it has more than the %d documents a file may have; split it", MaxResults)}
			}
		case len(documents) > 0:
			return nil, nil, &FileError{File: file, Offset: clean.original(dec.InputOffset()), Problem: "something follows the JSON object; remove it"}
		default:
			return nil, nil, &FileError{File: file, Problem: "it holds a single JSON value, not an object; import the JSON file that the benchmark saved"}
		}
	}
}

// cut reports whether the JSON only lacks its end.
func cut(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

func readList(file string, clean scanned, dec *json.Decoder, budget *int) ([]map[string]field, error) {
	var documents []map[string]field
	for dec.More() {
		start, err := dec.Token()
		if err != nil {
			return nil, clean.syntax(file, err, dec)
		}
		if start != json.Delim('{') {
			return nil, &FileError{File: file, Offset: clean.original(dec.InputOffset()), Problem: "it is a JSON list of something other than objects, which no benchmark known here writes"}
		}
		fields, err := readFields(file, clean, dec, budget)
		if err == nil {
			_, err = dec.Token()
		}
		if err != nil {
			return nil, clean.syntax(file, err, dec)
		}
		if documents = append(documents, fields); len(documents) > MaxResults {
			return nil, &FileError{File: file, Problem: fmt.Sprintf("it has more than the %d entries a file may have; split it", MaxResults)}
		}
	}
	if _, err := dec.Token(); err != nil {
		return nil, clean.syntax(file, err, dec)
	}
	if len(documents) == 0 {
		return nil, &FileError{File: file, Problem: "it is an empty JSON list; the benchmark wrote no result"}
	}
	return documents, nil
}

// readFields reads the fields of the object whose brace was just read. Python
// keeps the last of two fields of one name, and so do we.
func readFields(file string, clean scanned, dec *json.Decoder, budget *int) (map[string]field, error) {
	fields := map[string]field{}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, err
		}
		name, _ := key.(string) // inside an object the decoder gives strings here, or an error
		at := dec.InputOffset()
		var f field
		if err := dec.Decode(&f.raw); err != nil {
			return nil, err
		}
		// The decoder stands before the colon; the value begins behind it.
		value := bytes.TrimLeft(clean.data[at:], ": \t\r\n")
		start := len(clean.data) - len(value)
		f.offset = clean.original(int64(start))
		f.raw = clean.data[start:dec.InputOffset()] // not the decoder's copy
		fields[name] = f
		if *budget--; *budget < 0 {
			return nil, &FileError{File: file, Offset: f.offset, Problem: fmt.Sprintf("it has more than %d fields in all, which no benchmark writes; split it", maxAllFields)}
		}
		if len(fields) > maxFields {
			return nil, &FileError{File: file, Offset: f.offset, Problem: fmt.Sprintf("an object has more than %d fields, which no benchmark writes; check that this is a result file", maxFields)}
		}
	}
	return fields, nil
}

// maxFields is the most fields of a document. Real files have 60.
const maxFields = 10000

// maxAllFields is the most fields of all documents of a file.
const maxAllFields = 1 << 20

// textFormat finds the reader of a format that is no JSON.
func textFormat(data []byte) func(file string, data []byte) (Parsed, error) {
	head := string(data[:min(len(data), 4096)])
	switch {
	case strings.Contains(head, "MLPerf Results Summary"):
		return parseMLPerf
	case strings.Contains(head, ":::MLLOG"):
		return func(file string, _ []byte) (Parsed, error) {
			return Parsed{}, &UnsupportedError{File: file, Format: "MLPerf logging (mlperf_log_detail.txt)", Instead: "import mlperf_log_summary.txt, which is beside it"}
		}
	case strings.HasPrefix(strings.TrimPrefix(head, "\xef\xbb\xbf"), "build_commit,") && strings.Contains(head, ",avg_ts"):
		return parseLlamaBenchCSV
	}
	return nil
}
