// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"

	"github.com/danielgtaylor/huma/v2"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/filter"
)

func (a *api) registerLists() {
	huma.Register(a.huma, conditional("list-runs", "/v1/runs", "Runs, the newest first"), func(ctx context.Context, in *filter.RunList) (*body[catalog.Page[catalog.Summary]], error) {
		page, err := a.store.ListRuns(ctx, in.Query())
		return &body[catalog.Page[catalog.Summary]]{page}, a.problem(err)
	})
	huma.Register(a.huma, conditional("list-interruptions", "/v1/interruptions", "Interruptions, the newest first"), func(ctx context.Context, in *filter.InterruptionList) (*body[catalog.Page[catalog.Interruption]], error) {
		page, err := a.store.ListInterruptions(ctx, in.Query())
		return &body[catalog.Page[catalog.Interruption]]{page}, a.problem(err)
	})
	huma.Register(a.huma, conditional("list-models", "/v1/models", "Every model that has runs"), func(ctx context.Context, in *filter.Models) (*body[catalog.Page[catalog.Model]], error) {
		models, err := a.store.ListModels(ctx)
		return &body[catalog.Page[catalog.Model]]{catalog.Page[catalog.Model]{Items: in.Of(models)}}, a.problem(err)
	})
}
