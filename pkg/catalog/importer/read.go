// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
)

// gzipMagic begins every gzip file.
var gzipMagic = []byte{0x1f, 0x8b}

// packed are what other files begin with that are compressed or have several files in
// them. They are refused by their first bytes, whatever they would unpack to.
var packed = []struct{ magic, kind, instead string }{
	{"PK\x03\x04", "zip archives", "unpack it and import each file"},
	{"PK\x05\x06", "zip archives", "import the file that the benchmark wrote"},
	{"\x28\xb5\x2f\xfd", "zstd", "decompress it, or compress it with gzip"},
	{"\xfd7zXZ\x00", "xz", "decompress it, or compress it with gzip"},
	{"BZh", "bzip2", "decompress it, or compress it with gzip"},
	{"7z\xbc\xaf", "7-Zip archives", "unpack it and import each file"},
}

// Read reads a result file, decompressing it if it is gzip. It never reads more
// than MaxBytes, however large the file or what it decompresses to is.
func Read(file string, from io.Reader) ([]byte, error) {
	buffered := bufio.NewReader(from)
	head, err := buffered.Peek(len(gzipMagic))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("file %q: %w", file, err)
	}
	// Peek gives what there is of a file that is shorter; that was not worth an error above.
	long, _ := buffered.Peek(8)
	if err := notUnpacked(file, long); err != nil {
		return nil, err
	}
	if !bytes.Equal(head, gzipMagic) {
		return bounded(file, buffered)
	}
	unzip, err := gzip.NewReader(buffered)
	if err != nil {
		return nil, &FileError{File: file, Problem: fmt.Sprintf("not gzip, though it begins so: %v", err)}
	}
	data, err := bounded(file, unzip)
	if errors.Is(err, gzip.ErrChecksum) || errors.Is(err, gzip.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, &FileError{File: file, Problem: fmt.Sprintf("its gzip is damaged (%v); compress it again", err)}
	}
	return data, err
}

// notUnpacked is the error for what is packed as nothing here unpacks it.
func notUnpacked(file string, head []byte) error {
	for _, p := range packed {
		if bytes.HasPrefix(head, []byte(p.magic)) {
			return &UnsupportedError{File: file, Format: p.kind, Instead: p.instead}
		}
	}
	return nil
}

// Unpack is Read for a file that is in memory already. What it gives may be the same
// memory.
func Unpack(file string, data []byte) ([]byte, error) {
	switch {
	case bytes.HasPrefix(data, gzipMagic):
		return Read(file, bytes.NewReader(data))
	case len(data) > MaxBytes:
		return nil, tooLarge(file)
	}
	return data, notUnpacked(file, data)
}

// ReadFile reads a result file of the disk as Read does.
func ReadFile(path, name string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := Read(name, f)
	return data, errors.Join(err, f.Close())
}

// bounded reads to the end, or to one byte more than a file may have.
func bounded(file string, from io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(from, MaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("file %q: %w", file, err)
	}
	if len(data) > MaxBytes {
		return nil, tooLarge(file)
	}
	return data, nil
}
