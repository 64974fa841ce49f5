// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"cmp"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/spotbench/spotbench/pkg/catalog"
)

const (
	keyColumns = `id, role, namespaces, created_at, created_by, rotated_at, expires_at, revoked_at, last_used_at`
	selectKeys = `SELECT ` + keyColumns + ` FROM api_keys`
)

func scanKey(from row) (k catalog.APIKey, err error) {
	var rotated, revoked, used *time.Time
	err = from.Scan(&k.ID, &k.Role, (*[]string)(&k.Namespaces), &k.CreatedAt, &k.CreatedBy, &rotated, &k.ExpiresAt, &revoked, &used)
	k.CreatedAt, k.ExpiresAt = k.CreatedAt.UTC(), k.ExpiresAt.UTC()
	k.RotatedAt, k.RevokedAt, k.LastUsedAt = moment(rotated), moment(revoked), moment(used)
	return k, err
}

// CreateKey files a new key by the hash of its secret. An id is used once, also
// after its key was revoked: the log of writes names callers by it.
func (s *Store) CreateKey(ctx context.Context, key catalog.APIKey, hash []byte) (made catalog.APIKey, err error) {
	if err := key.Validate(s.now()); err != nil {
		return made, fmt.Errorf("%w: %w", catalog.ErrInvalid, err)
	}
	err = s.write(ctx, func(c *change) error {
		keys, err := returned(ctx, c, scanKey, `INSERT INTO api_keys (id, role, hash, created_by, expires_at, namespaces) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO NOTHING RETURNING `+keyColumns,
			key.ID, key.Role, hash, key.CreatedBy, stamp(key.ExpiresAt), []string(key.Namespaces))
		for _, made = range keys {
			return nil
		}
		return cmp.Or(err, fmt.Errorf("key %q: %w: there is one of this name; rotate it, or take another name", key.ID, catalog.ErrChanged))
	})
	return made, explain(err)
}

// RotateKey gives a key that works a new secret and a new end. The secret that was
// the current one works on for the overlap; one from before that ends at once. A caller who
// did not get the answer sends the same rotation again, by its name: that gives another new
// secret, and the one before the first attempt works on. "" is a rotation without a name.
func (s *Store) RotateKey(ctx context.Context, id string, hash []byte, expires time.Time, overlap time.Duration, rotation string) (rotated catalog.APIKey, err error) {
	err = s.write(ctx, func(c *change) error {
		keys, err := returned(ctx, c, scanKey, selectKeys+" WHERE id = $1 AND revoked_at IS NULL FOR UPDATE", id)
		if err != nil {
			return err
		}
		if len(keys) == 0 {
			return fmt.Errorf("key %q: %w", id, catalog.ErrNotFound)
		}
		keys[0].ExpiresAt = expires
		if err := keys[0].Validate(s.now()); err != nil {
			return fmt.Errorf("%w: %w", catalog.ErrInvalid, err)
		}
		keys, err = returned(ctx, c, scanKey, `UPDATE api_keys SET previous_hash = CASE WHEN $5 <> '' AND rotation = $5 THEN previous_hash ELSE hash END,
			previous_until = CASE WHEN $5 <> '' AND rotation = $5 THEN previous_until ELSE least(expires_at, $3::timestamptz) END,
			hash = $2, rotated_at = now(), expires_at = $4, rotation = $5 WHERE id = $1 RETURNING `+keyColumns,
			id, hash, stamp(s.now().Add(overlap)), stamp(expires), rotation)
		for _, rotated = range keys {
			return nil
		}
		return err
	})
	return rotated, explain(err)
}

// RevokeKey ends a key, both of its secrets, for good.
func (s *Store) RevokeKey(ctx context.Context, id string) error {
	return explain(s.write(ctx, func(c *change) error {
		changed, err := c.exec(ctx, "UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1", id)
		if err == nil && changed == 0 {
			err = fmt.Errorf("key %q: %w", id, catalog.ErrNotFound)
		}
		return err
	}))
}

// ListKeys is every key, the revoked and expired ones too.
func (s *Store) ListKeys(ctx context.Context) ([]catalog.APIKey, error) {
	keys, err := collect(ctx, s.pool, scanKey, selectKeys+" ORDER BY id")
	return keys, explain(err)
}

// CheckKey is the role and the namespaces of a key that works and has this secret; the
// role is "" when there is none. It notes that the key was used.
func (s *Store) CheckKey(ctx context.Context, id string, hash []byte) (role catalog.Role, namespaces catalog.Namespaces, err error) {
	var current, previous []byte
	err = s.pool.QueryRow(ctx, `SELECT role, namespaces, hash, CASE WHEN previous_until > now() THEN previous_hash END FROM api_keys WHERE id = $1 AND revoked_at IS NULL AND expires_at > now()`, id).
		Scan(&role, (*[]string)(&namespaces), &current, &previous)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil, nil
	}
	if err != nil {
		return "", nil, explain(s.heed(err))
	}
	if subtle.ConstantTimeCompare(hash, current)|subtle.ConstantTimeCompare(hash, previous) == 0 {
		return "", nil, nil
	}
	// The key is good, also where that cannot be noted: during a failover for one.
	_, err = s.pool.Exec(ctx, "UPDATE api_keys SET last_used_at = now() WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')", id)
	_ = s.heed(err)
	return role, namespaces, nil
}

// ListAudit is one page of the log of writes.
func (s *Store) ListAudit(ctx context.Context, query catalog.AuditQuery) (catalog.Page[catalog.AuditEntry], error) {
	page := catalog.Page[catalog.AuditEntry]{Items: []catalog.AuditEntry{}}
	limit := catalog.PageSize(query.Limit)
	var w where
	w.equal("caller", query.Caller)
	w.between("at", query.Since, query.Before)
	if query.PageToken != "" {
		p, err := parseToken(query.PageToken, 1, query.OldestFirst)
		if err != nil {
			return page, err
		}
		id, err := strconv.ParseInt(p.Keys[0], 10, 64)
		if err != nil {
			return page, unknownToken(query.PageToken)
		}
		w.after("at, id", query.OldestFirst, p.At, id)
	}
	var ids []int64
	scan := func(from row) (e catalog.AuditEntry, err error) {
		var id int64
		err = from.Scan(&id, &e.At, &e.Caller, &e.Operation, &e.Target, &e.Remote)
		e.At, ids = e.At.UTC(), append(ids, id)
		return e, err
	}
	rows, err := collect(ctx, s.pool, scan, "SELECT id, at, caller, operation, target, remote FROM audit"+w.sql("at, id", query.OldestFirst, limit), w.args...)
	if err != nil {
		return page, explain(err)
	}
	if len(rows) > limit {
		rows = rows[:limit]
		page.NextPageToken = position{OldestFirst: query.OldestFirst, At: rows[limit-1].At, Keys: []string{strconv.FormatInt(ids[limit-1], 10)}}.token()
	}
	page.Items = append(page.Items, rows...)
	return page, nil
}
