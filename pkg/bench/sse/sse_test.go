// SPDX-License-Identifier: Apache-2.0

package sse_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/spotbench/spotbench/pkg/bench/sse"
)

func readAll(r io.Reader) ([]string, error) {
	var events []string
	reader := sse.NewReader(r)
	for {
		data, err := reader.Next()
		if err != nil {
			return events, err
		}
		events = append(events, data)
	}
}

func TestReaderFollowsTheStandard(t *testing.T) {
	for name, c := range map[string]struct {
		stream string
		want   []string
	}{
		"one event per block ended by an empty line":         {"data: a\n\ndata: b\n\n", []string{"a", "b"}},
		"the space after the colon is optional and single":   {"data:a\n\ndata:  b\n\n", []string{"a", " b"}},
		"several data lines are joined by a line feed":       {"data: a\ndata: b\n\n", []string{"a\nb"}},
		"lines may end in CR, LF or both":                    {"data: a\r\rdata: b\r\n\r\ndata: c\n\n", []string{"a", "b", "c"}},
		"comments and other fields carry no data":            {": ping\n\nevent: x\nid: 1\ndata: a\n\n", []string{"a"}},
		"a byte order mark before the first line is no data": {"\ufeffdata: a\n\n", []string{"a"}},
		"an event cut off by the end is dropped":             {"data: a\n\ndata: b\n", []string{"a"}},
		"an empty data line is an event with empty data":     {"data\n\n", []string{""}},
		"empty lines alone are no events":                    {"\n\n\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readAll(strings.NewReader(c.stream))
			if !errors.Is(err, io.EOF) {
				t.Fatalf("ended with %v, want io.EOF", err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReaderRefusesAnEventThatNeverEnds(t *testing.T) {
	for name, stream := range map[string]string{
		"in one line":   "data: " + strings.Repeat("x", sse.MaxEvent+1) + "\n\n",
		"in many lines": strings.Repeat("data: "+strings.Repeat("x", 1000)+"\n", 1100) + "\n",
	} {
		if _, err := readAll(strings.NewReader(stream)); !errors.Is(err, sse.ErrTooLarge) {
			t.Errorf("%s: got %v, want ErrTooLarge", name, err)
		}
	}
}

func TestReaderReportsABrokenConnectionAsAnErrorAndNotAsTheEnd(t *testing.T) {
	broken := io.MultiReader(strings.NewReader("data: a\n\nda"), iotest.ErrReader(io.ErrUnexpectedEOF))
	got, err := readAll(broken)
	if !errors.Is(err, io.ErrUnexpectedEOF) || len(got) != 1 {
		t.Errorf("got %q and %v, want one event and io.ErrUnexpectedEOF", got, err)
	}
}

// How the network cuts a stream into reads must not change what it says.
func FuzzReaderDoesNotDependOnHowTheStreamIsCut(f *testing.F) {
	f.Add("data: a\r\n\r\ndata: b\rdata: c\r\r: x\n\n")
	f.Add("\ufeffdata:\n\ndata: {\"a\":1}\n\ndata: [DONE]\n\n")
	f.Fuzz(func(t *testing.T, stream string) {
		whole, wholeErr := readAll(strings.NewReader(stream))
		cut, cutErr := readAll(iotest.OneByteReader(strings.NewReader(stream)))
		if diff := cmp.Diff(whole, cut); diff != "" || !errors.Is(cutErr, wholeErr) {
			t.Fatalf("cut in bytes: %v against %v (-whole +cut):\n%s", cutErr, wholeErr, diff)
		}
		for _, data := range whole {
			if strings.ContainsRune(data, '\r') {
				t.Fatalf("data %q has an end of line inside", data)
			}
			if len(data) > len(stream) {
				t.Fatalf("data %q is longer than its stream", data)
			}
		}
	})
}
