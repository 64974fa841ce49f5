// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"

	"github.com/danielgtaylor/huma/v2"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// Paged is which part of a list is asked for.
type Paged struct {
	Limit     int    `query:"limit" minimum:"1" maximum:"500" default:"50" doc:"Most items on the page"`
	PageToken string `query:"pageToken" maxLength:"2048" doc:"nextPageToken of the page before"`
}

func (a *api) registerLists() {
	huma.Register(a.huma, read("list-runs", "/v1/runs", "Runs, the newest first"), func(ctx context.Context, in *struct {
		Paged
		Model     string `query:"model" maxLength:"512"`
		Benchmark string `query:"benchmark" maxLength:"512"`
		GPUModel  string `query:"gpuModel" maxLength:"128"`
		Namespace string `query:"namespace" maxLength:"253"`
		Status    string `query:"status" enum:"running,interrupted,failed,succeeded"`
	}) (*body[catalog.Page[catalog.Summary]], error) {
		page, err := a.store.ListRuns(ctx, catalog.RunQuery{Model: in.Model, Benchmark: in.Benchmark, GPUModel: in.GPUModel,
			Namespace: in.Namespace, Status: catalog.Status(in.Status), Limit: in.Limit, PageToken: in.PageToken})
		return &body[catalog.Page[catalog.Summary]]{page}, a.problem(err)
	})
	huma.Register(a.huma, read("list-results", "/v1/results", "Results, those of the newest import first"), func(ctx context.Context, in *struct {
		Paged
		Run   string `query:"run" maxLength:"512" doc:"Key of a run"`
		Model string `query:"model" maxLength:"512" doc:"Model as the benchmark names it"`
	}) (*body[catalog.Page[catalog.Result]], error) {
		page, err := a.store.ListResults(ctx, catalog.ResultQuery{RunKey: in.Run, Model: in.Model, Limit: in.Limit, PageToken: in.PageToken})
		return &body[catalog.Page[catalog.Result]]{page}, a.problem(err)
	})
	huma.Register(a.huma, read("list-interruptions", "/v1/interruptions", "Interruptions, the newest first"), func(ctx context.Context, in *struct {
		Paged
		Run  string `query:"run" maxLength:"512" doc:"Key of a run"`
		Node string `query:"node" maxLength:"253" doc:"Node that went away"`
	}) (*body[catalog.Page[catalog.Interruption]], error) {
		page, err := a.store.ListInterruptions(ctx, catalog.InterruptionQuery{RunKey: in.Run, Node: in.Node, Limit: in.Limit, PageToken: in.PageToken})
		return &body[catalog.Page[catalog.Interruption]]{page}, a.problem(err)
	})
	huma.Register(a.huma, read("list-models", "/v1/models", "Every model that has runs"), func(ctx context.Context, _ *struct{}) (*body[catalog.Page[catalog.Model]], error) {
		models, err := a.store.ListModels(ctx)
		return &body[catalog.Page[catalog.Model]]{catalog.Page[catalog.Model]{Items: models}}, a.problem(err)
	})
}
