// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"os"

	"github.com/zeebo/blake3"
)

// Key encrypts checkpoints before they leave the machine; the zero Key does not.
type Key struct{ secret []byte }

// keySize is the size of a key in bytes: AES-256.
const keySize = 32

// ReadKey reads a key from a file that holds 32 bytes as 64 hexadecimal digits or
// in base64; white space around them does not count.
func ReadKey(file string) (Key, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return Key{}, fmt.Errorf("encryption key: %w", err)
	}
	data = bytes.TrimSpace(data)
	secret, err := hex.DecodeString(string(data))
	if err != nil {
		secret, err = base64.StdEncoding.DecodeString(string(data))
	}
	if err != nil || len(secret) != keySize {
		return Key{}, fmt.Errorf("encryption key %s: it is not 32 bytes in hexadecimal or base64; make one with: openssl rand -hex 32", file)
	}
	return Key{secret}, nil
}

// seal is how a run's objects are named and closed.
type seal struct {
	id   string      // of the key; "" without encryption
	name []byte      // key of the chunks' names; nil without encryption
	aead cipher.AEAD // nil without encryption
}

// newSeal derives the keys of a run. Each run has its own, so that neither two runs
// nor two keys give equal content equal names.
func newSeal(key Key, run string) (seal, error) {
	if len(key.secret) == 0 {
		return seal{}, nil
	}
	derive := func(purpose string, size int) ([]byte, error) {
		return hkdf.Key(sha256.New, key.secret, nil, format+" "+purpose, size)
	}
	id, err := derive("id", 8)
	if err != nil {
		return seal{}, err
	}
	name, err := derive("names "+run, keySize)
	if err != nil {
		return seal{}, err
	}
	secret, err := derive("data "+run, keySize)
	if err != nil {
		return seal{}, err
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return seal{}, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return seal{}, err
	}
	return seal{id: hex.EncodeToString(id), name: name, aead: aead}, nil
}

// hash names content by its BLAKE3, with a key by one that only who has it can tell.
func (s seal) hash() *blake3.Hasher {
	if s.name == nil {
		return blake3.New()
	}
	h, err := blake3.NewKeyed(s.name)
	if err != nil {
		panic(err) // newSeal makes names' keys of the one size that there is
	}
	return h
}

func (s seal) digest(data []byte) string {
	h := s.hash()
	_, _ = h.Write(data) // never fails
	return hex.EncodeToString(h.Sum(nil))
}

// digestOf is the digest of size bytes of f from an offset; "" if there are fewer. A
// small buffer keeps them in the processor's cache between being read and hashed.
func (s seal) digestOf(f io.ReaderAt, offset, size int64) (string, error) {
	h := s.hash()
	n, err := io.CopyBuffer(struct{ io.Writer }{h}, io.NewSectionReader(f, offset, size), make([]byte, 128<<10))
	if err != nil || n < size {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// overhead is what close adds to data, in bytes.
func (s seal) overhead() int {
	if s.aead == nil {
		return 0
	}
	return s.aead.Overhead()
}

// close appends data, as it is stored under a name, to buffer. An object that was
// given another's name does not open.
func (s seal) close(buffer, data []byte, name string) []byte {
	if s.aead == nil {
		return append(buffer, data...)
	}
	return s.aead.Seal(buffer, nil, data, []byte(name)) //nolint:gosec // there is a nonce: this AEAD draws its own for each message
}

// open undoes close, in place.
func (s seal) open(data []byte, name string) ([]byte, error) {
	if s.aead == nil {
		return data, nil
	}
	return s.aead.Open(data[:0], nil, data, []byte(name))
}
