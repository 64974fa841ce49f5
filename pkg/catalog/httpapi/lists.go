// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// Paged is which part of a list is asked for.
type Paged struct {
	Limit     int    `query:"limit" minimum:"1" maximum:"500" default:"50" doc:"Most items on the page"`
	PageToken string `query:"pageToken" maxLength:"2048" doc:"nextPageToken of the page before, for the same filters and order"`
	Order     string `query:"order" enum:"newest,oldest" default:"newest" doc:"Which come first"`
	Dated
}

// Dated bounds the time by which a list is sorted.
type Dated struct {
	Since  time.Time `query:"since" doc:"At or after this time"`
	Before time.Time `query:"before" doc:"Before this time"`
}

// Results are the filters of results, the same for a list and an export.
type Results struct {
	Run         string `query:"run" maxLength:"512" doc:"Key of a run"`
	Model       string `query:"model" maxLength:"512" doc:"Model as the benchmark names it"`
	Format      string `query:"sourceFormat" maxLength:"64" doc:"Format of the file it came from" example:"vllm"`
	GPUModel    string `query:"gpuModel" maxLength:"128" doc:"GPU model of its run"`
	Concurrency int64  `query:"concurrency" minimum:"0" maximum:"1000000000" doc:"Most requests in flight; 0 for any"`
}

func (r Results) query(p Paged) catalog.ResultQuery {
	q := catalog.ResultQuery{RunKey: r.Run, Model: r.Model, Format: r.Format, GPUModel: r.GPUModel,
		Since: p.Since, Before: p.Before, OldestFirst: p.Order == "oldest", Limit: p.Limit, PageToken: p.PageToken}
	if r.Concurrency > 0 {
		q.Concurrency = &r.Concurrency
	}
	return q
}

func (a *api) registerLists() {
	huma.Register(a.huma, conditional("list-runs", "/v1/runs", "Runs, the newest first"), func(ctx context.Context, in *struct {
		Paged
		Model        string `query:"model" maxLength:"512"`
		Benchmark    string `query:"benchmark" maxLength:"512"`
		GPUModel     string `query:"gpuModel" maxLength:"128"`
		Namespace    string `query:"namespace" maxLength:"253"`
		Status       string `query:"status" enum:"running,interrupted,failed,succeeded"`
		Node         string `query:"node" maxLength:"253" doc:"Node of the newest pod"`
		Region       string `query:"region" maxLength:"128"`
		InstanceType string `query:"instanceType" maxLength:"128"`
		CapacityType string `query:"capacityType" enum:"spot,on-demand"`
	}) (*body[catalog.Page[catalog.Summary]], error) {
		page, err := a.store.ListRuns(ctx, catalog.RunQuery{Model: in.Model, Benchmark: in.Benchmark, GPUModel: in.GPUModel,
			Namespace: in.Namespace, Status: catalog.Status(in.Status),
			Node: in.Node, Region: in.Region, InstanceType: in.InstanceType, CapacityType: in.CapacityType,
			Since: in.Since, Before: in.Before, OldestFirst: in.Order == "oldest", Limit: in.Limit, PageToken: in.PageToken})
		return &body[catalog.Page[catalog.Summary]]{page}, a.problem(err)
	})
	huma.Register(a.huma, conditional("list-results", "/v1/results", "Results, those of the newest import first"), func(ctx context.Context, in *struct {
		Paged
		Results
	}) (*body[catalog.Page[catalog.Result]], error) {
		page, err := a.store.ListResults(ctx, in.query(in.Paged))
		return &body[catalog.Page[catalog.Result]]{page}, a.problem(err)
	})
	huma.Register(a.huma, conditional("list-interruptions", "/v1/interruptions", "Interruptions, the newest first"), func(ctx context.Context, in *struct {
		Paged
		Run  string `query:"run" maxLength:"512" doc:"Key of a run"`
		Node string `query:"node" maxLength:"253" doc:"Node that went away"`
		Kind string `query:"kind" maxLength:"128" doc:"Kind of the notice, for example spot"`
	}) (*body[catalog.Page[catalog.Interruption]], error) {
		page, err := a.store.ListInterruptions(ctx, catalog.InterruptionQuery{RunKey: in.Run, Node: in.Node, Kind: in.Kind, Since: in.Since, Before: in.Before, OldestFirst: in.Order == "oldest", Limit: in.Limit, PageToken: in.PageToken})
		return &body[catalog.Page[catalog.Interruption]]{page}, a.problem(err)
	})
	huma.Register(a.huma, conditional("list-models", "/v1/models", "Every model that has runs"), func(ctx context.Context, _ *struct{}) (*body[catalog.Page[catalog.Model]], error) {
		models, err := a.store.ListModels(ctx)
		return &body[catalog.Page[catalog.Model]]{catalog.Page[catalog.Model]{Items: models}}, a.problem(err)
	})
}
