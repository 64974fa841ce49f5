// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"

	"github.com/spf13/pflag"

	"github.com/spotbench/spotbench/pkg/checkpoint"
)

// storeForms are the URLs that name a store.
const storeForms = "s3://…, gs://…, azblob://… or file:///…"

// storeFlags say where the checkpoints are and how to read them.
type storeFlags struct{ url, keyFile string }

func (s *storeFlags) add(f *pflag.FlagSet) {
	f.StringVar(&s.url, "store", "", "checkpoint store: "+storeForms)
	f.StringVar(&s.keyFile, "encryption-key-file", "", "file with the key that checkpoints are encrypted with: 32 bytes in hexadecimal or base64 (default: not encrypted)")
}

func (s *storeFlags) open(ctx context.Context, o checkpoint.Options) (*checkpoint.Store, error) {
	if s.url == "" {
		return nil, errors.New("--store is missing; give the store that the agents use, for example s3://checkpoints?region=us-east-1")
	}
	o.URL = s.url
	if s.keyFile != "" {
		key, err := checkpoint.ReadKey(s.keyFile)
		if err != nil {
			return nil, err
		}
		o.Key = key
	}
	return checkpoint.Open(ctx, o)
}
