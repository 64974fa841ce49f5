// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// Savings reports on what the segments that touch the query's time cost.
func (s *Store) Savings(ctx context.Context, query catalog.SavingsQuery) (catalog.SavingsReport, error) {
	if err := query.Validate(); err != nil {
		return catalog.SavingsReport{}, fmt.Errorf("%w: %w", catalog.ErrInvalid, err)
	}
	now := s.now()
	var w where
	w.conditions = append(w.conditions, "s.started_at IS NOT NULL")
	w.within(ctx, "s.run_key")
	w.equal("r.model", query.Model)
	w.equal("r.namespace", query.Namespace)
	if !query.From.IsZero() {
		w.compare("coalesce(s.ended_at, now()) >", stamp(query.From))
	}
	if !query.To.IsZero() {
		w.compare("s.started_at <", stamp(query.To))
	}
	scan := func(from row) (catalog.Spending, error) {
		var item catalog.Spending
		var started, ended *time.Time
		g := &item.Segment
		err := from.Scan(&item.RunKey, &item.Model, &item.Namespace, &g.PodUID, &g.Region, &g.Zone, &g.InstanceType, &g.CapacityType,
			&g.USDPerHour, &g.OnDemandUSDPerHour, &started, &ended, &item.Interruptions, &item.WorkLostSeconds)
		g.StartedAt, g.EndedAt = moment(started), moment(ended)
		return item, err
	}
	items, err := ask(ctx, s, scan, `SELECT s.run_key, r.model, r.namespace, s.pod_uid, s.region, s.zone, s.instance_type, s.capacity_type,
		s.usd_per_hour, s.on_demand_usd_per_hour, s.started_at, s.ended_at, coalesce(i.count, 0), coalesce(i.lost, 0)
		FROM segments s JOIN runs r ON r.key = s.run_key
		LEFT JOIN (SELECT run_key, pod_uid, count(*), sum(work_lost_seconds) AS lost FROM interruptions GROUP BY run_key, pod_uid) i
		ON i.run_key = s.run_key AND i.pod_uid = s.pod_uid`+w.all()+" ORDER BY s.run_key, s.pod_uid", w.given()...)
	if err != nil {
		return catalog.SavingsReport{}, explain(err)
	}
	return catalog.Save(items, query, now), nil
}
