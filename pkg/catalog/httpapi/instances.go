// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/filter"
)

func (a *api) registerInstances() {
	huma.Register(a.huma, a.write("put-instance", http.MethodPut, "/v1/instances/{uid}", "Tell of the life of a machine"),
		func(ctx context.Context, in *struct {
			UID  string `path:"uid" minLength:"1" maxLength:"128" doc:"UID of the Node"`
			Body catalog.Instance
		}) (*body[catalog.Instance], error) {
			if err := in.Body.Validate(); err != nil {
				return nil, invalid(err)
			}
			instance, err := a.store.PutInstance(ctx, in.UID, in.Body)
			return &body[catalog.Instance]{instance}, a.problem(err)
		})
	huma.Register(a.huma, read("list-instances", "/v1/instances", "Machines and how long they lived, the youngest first"), func(ctx context.Context, in *filter.InstanceList) (*body[catalog.Page[catalog.Instance]], error) {
		page, err := a.store.ListInstances(ctx, in.Query())
		return &body[catalog.Page[catalog.Instance]]{page}, a.problem(err)
	})
	op := read("list-risks", "/v1/risk", "How likely machines of each pool are taken back, and what that is known from")
	op.Description = "Learned from the lives of the machines that agents reported, the newer ones counting more, starting from what is assumed of the pool. " +
		"A query that names provider and instanceType is answered also where nothing was observed."
	huma.Register(a.huma, op, func(ctx context.Context, in *filter.Pool) (*body[catalog.Page[catalog.PoolRisk]], error) {
		now := time.Now()
		lives, err := a.store.Lives(ctx, now.Add(-catalog.RiskWindow))
		if err != nil {
			return nil, a.problem(err)
		}
		risks := catalog.ReckonRisk(lives, a.hazards, catalog.RiskQuery{Provider: in.Provider, Region: in.Region, Zone: in.Zone, InstanceType: in.InstanceType, CapacityType: in.CapacityType}, now)
		return &body[catalog.Page[catalog.PoolRisk]]{catalog.Page[catalog.PoolRisk]{Items: risks}}, nil
	})
	huma.Register(a.huma, read("get-savings", "/v1/savings", "What spot capacity saved: paid, on demand, and what the discount allows at most"), func(ctx context.Context, in *struct {
		By        string    `query:"by" enum:"model,pool,namespace,month,run" default:"model" doc:"What the lines stand for"`
		From      time.Time `query:"from" doc:"Only what was spent after this time (RFC 3339)"`
		To        time.Time `query:"to" doc:"Only what was spent before this time (RFC 3339)"`
		Model     string    `query:"model" maxLength:"512"`
		Namespace string    `query:"namespace" maxLength:"253"`
	}) (*body[catalog.SavingsReport], error) {
		report, err := a.store.Savings(ctx, catalog.SavingsQuery{By: catalog.SavingsBy(in.By), From: in.From, To: in.To, Model: in.Model, Namespace: in.Namespace})
		return &body[catalog.SavingsReport]{report}, a.problem(err)
	})
}
