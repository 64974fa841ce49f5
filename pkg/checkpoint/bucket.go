// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	gcaws "gocloud.dev/aws"
)

// EnsureBucket makes the bucket of an s3:// URL if it is not there. It is for
// object stores that a cluster brings along; on AWS a bucket deserves its own
// policy and is made by whoever owns the account. For file:// it does nothing,
// since Open makes the directory.
func EnsureBucket(ctx context.Context, storeURL string) error {
	u, err := url.Parse(storeURL)
	if err != nil {
		return fmt.Errorf("checkpoint store: %w", err)
	}
	if u.Scheme == "file" {
		return nil
	}
	if u.Scheme != "s3" || u.Host == "" {
		return fmt.Errorf("checkpoint store %q: use s3://bucket?region=…", redact(storeURL))
	}
	q := u.Query()
	pathStyle := q.Get("use_path_style") == "true"
	q.Del("use_path_style")
	cfg, err := gcaws.V2ConfigFromURLParams(ctx, q)
	if err != nil {
		return fmt.Errorf("checkpoint store %s: %w", redact(storeURL), err)
	}
	client := s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = pathStyle })
	_, err = client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &u.Host})
	var owned *types.BucketAlreadyOwnedByYou
	var exists *types.BucketAlreadyExists
	if err != nil && !errors.As(err, &owned) && !errors.As(err, &exists) {
		return fmt.Errorf("make bucket %s: %w", u.Host, err)
	}
	return nil
}
