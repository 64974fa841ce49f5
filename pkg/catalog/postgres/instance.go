// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/spotbench/spotbench/pkg/catalog"
)

const selectInstances = `SELECT uid, node, provider, region, zone, instance_type, capacity_type, started_at, seen_at, rebalance_at, notice_at FROM instances`

func scanInstance(from row) (catalog.Instance, error) {
	var i catalog.Instance
	var started, seen, rebalance, notice *time.Time
	err := from.Scan(&i.UID, &i.Node, &i.Provider, &i.Region, &i.Zone, &i.InstanceType, &i.CapacityType, &started, &seen, &rebalance, &notice)
	i.StartedAt, i.SeenAt, i.RebalanceAt, i.NoticeAt = moment(started), moment(seen), moment(rebalance), moment(notice)
	return i, err
}

// PutInstance creates a machine or merges the update into it.
func (s *Store) PutInstance(ctx context.Context, uid string, update catalog.Instance) (catalog.Instance, error) {
	if namespaces := catalog.NamespacesOf(ctx); namespaces.Limited() {
		return catalog.Instance{}, fmt.Errorf("%w: the caller is limited to %s, and machines are in none", catalog.ErrForbidden, namespaces)
	}
	var merged catalog.Instance
	err := s.write(ctx, func(c *change) error {
		var locked pgx.Batch
		// The row must exist to be locked.
		locked.Queue("INSERT INTO instances (uid) VALUES ($1) ON CONFLICT (uid) DO NOTHING", uid)
		known := queue(&locked, scanInstance, selectInstances+" WHERE uid = $1 FOR UPDATE", uid)
		if err := c.send(ctx, &locked); err != nil {
			return err
		}
		merged = catalog.Instance{}
		for _, old := range *known {
			merged = old
		}
		merged = merged.Merge(update)
		merged.UID = uid
		if err := merged.Validate(); err != nil {
			return fmt.Errorf("%w: with what is known of the instance already: %w", catalog.ErrInvalid, err)
		}
		c.end.Queue(`UPDATE instances SET node = $2, provider = $3, region = $4, zone = $5, instance_type = $6, capacity_type = $7,
			started_at = $8::timestamptz, seen_at = $9, rebalance_at = $10, notice_at = $11,
			listed_at = coalesce($8::timestamptz, listed_at) WHERE uid = $1`,
			uid, merged.Node, merged.Provider, merged.Region, merged.Zone, merged.InstanceType, merged.CapacityType,
			stamp(merged.StartedAt), stamp(merged.SeenAt), stamp(merged.RebalanceAt), stamp(merged.NoticeAt))
		return nil
	})
	return merged, explain(err)
}

// ListInstances is one page of machines, the youngest first.
func (s *Store) ListInstances(ctx context.Context, query catalog.InstanceQuery) (catalog.Page[catalog.Instance], error) {
	page := catalog.Page[catalog.Instance]{Items: []catalog.Instance{}}
	limit := catalog.PageSize(query.Limit)
	var w where
	w.equal("provider", query.Provider)
	w.equal("region", query.Region)
	w.equal("zone", query.Zone)
	w.equal("instance_type", query.InstanceType)
	w.equal("capacity_type", query.CapacityType)
	w.equal("node", query.Node)
	o, err := orderOf(query.Sort, "startedAt", "listed_at", "uid", query.OldestFirst, sortsOfInstances)
	if err != nil {
		return page, err
	}
	if err := w.sortBy(o, query.PageToken, asText, 1); err != nil {
		return page, err
	}
	var places []place
	scan := func(from row) (catalog.Instance, error) {
		var p place
		i, err := scanInstance(withMore{from, o.into(&p)})
		places = append(places, p)
		return i, err
	}
	rows, err := collect(ctx, s.pool, scan, strings.Replace(selectInstances, " FROM instances", ", "+o.value()+" FROM instances", 1)+
		w.sql(o.columns(), o.ascending, limit), w.args...)
	if err != nil {
		return page, explain(err)
	}
	if len(rows) > limit {
		rows = rows[:limit]
		page.NextPageToken = o.token(places[limit-1], rows[limit-1].UID)
	}
	page.Items = append(page.Items, rows...)
	return page, nil
}

// Lives is every machine of spot capacity that was seen since a time: what risks are
// reckoned from.
func (s *Store) Lives(ctx context.Context, since time.Time) ([]catalog.Instance, error) {
	machines, err := collect(ctx, s.pool, scanInstance, selectInstances+" WHERE capacity_type = 'spot' AND seen_at >= $1", stamp(since))
	return machines, explain(err)
}
