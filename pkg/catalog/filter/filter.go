// SPDX-License-Identifier: Apache-2.0

// Package filter has the filters of the catalog's lists and comparisons, once for
// all: the API's parameters, the client's queries and the command line's flags
// are made from the same types, so that they cannot drift apart. A field's tags
// are its name in a query, its description, and what values it takes.
package filter

import (
	"time"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// Runs says which runs; what is empty matches all.
type Runs struct {
	Model         string          `query:"model" maxLength:"512" doc:"Model of the run"`
	Benchmark     string          `query:"benchmark" maxLength:"512" doc:"Name of the benchmark"`
	GPUModel      string          `query:"gpuModel" maxLength:"128" doc:"GPU model, canonical" example:"H100-80GB"`
	Namespace     string          `query:"namespace" maxLength:"253" doc:"Namespace of the run's pods"`
	Status        catalog.Status  `query:"status" enum:"running,interrupted,failed,succeeded" doc:"State of the run"`
	Verdict       catalog.Verdict `query:"verdict" enum:"valid,suspect,invalid,pending" doc:"Whether its results may be believed"`
	Engine        string          `query:"engine" maxLength:"128" doc:"Inference engine"`
	EngineVersion string          `query:"engineVersion" maxLength:"128" doc:"Version of the engine"`
	DriverVersion string          `query:"driverVersion" maxLength:"128" doc:"Version of the GPU driver"`
	Node          string          `query:"node" maxLength:"253" doc:"Node of the newest pod"`
	Region        string          `query:"region" maxLength:"128" doc:"Region of the newest pod's node"`
	InstanceType  string          `query:"instanceType" maxLength:"128" doc:"Instance type of that node"`
	CapacityType  string          `query:"capacityType" enum:"spot,on-demand" doc:"How that node was bought"`
	Dated
}

// Query is the filter as the store takes it.
func (r Runs) Query() catalog.RunQuery {
	return catalog.RunQuery{Model: r.Model, Benchmark: r.Benchmark, GPUModel: r.GPUModel, Namespace: r.Namespace, Status: r.Status, Verdict: r.Verdict,
		Engine: r.Engine, EngineVersion: r.EngineVersion, DriverVersion: r.DriverVersion,
		Node: r.Node, Region: r.Region, InstanceType: r.InstanceType, CapacityType: r.CapacityType, Since: r.Since, Before: r.Before}
}

// Results says which results, the same for a list and an export.
type Results struct {
	Run         string          `query:"run" maxLength:"512" doc:"Key of a run"`
	Model       string          `query:"model" maxLength:"512" doc:"Model as the benchmark names it"`
	Format      string          `query:"sourceFormat" maxLength:"64" doc:"Format of the file it came from" example:"vllm"`
	GPUModel    string          `query:"gpuModel" maxLength:"128" doc:"GPU model of its run"`
	Verdict     catalog.Verdict `query:"verdict" enum:"valid,suspect,invalid,pending" doc:"Verdict on its run"`
	Concurrency int64           `query:"concurrency" minimum:"0" maximum:"1000000000" doc:"Most requests in flight; 0 for any"`
	Dated
}

// Query is the filter as the store takes it.
func (r Results) Query() catalog.ResultQuery {
	q := catalog.ResultQuery{RunKey: r.Run, Model: r.Model, Format: r.Format, GPUModel: r.GPUModel, Verdict: r.Verdict, Since: r.Since, Before: r.Before}
	if r.Concurrency > 0 {
		q.Concurrency = &r.Concurrency
	}
	return q
}

// Interruptions says which interruptions.
type Interruptions struct {
	Run  string `query:"run" maxLength:"512" doc:"Key of a run"`
	Node string `query:"node" maxLength:"253" doc:"Node that went away"`
	Kind string `query:"kind" maxLength:"128" doc:"Kind of the notice, for example spot"`
	Dated
}

// Dated bounds the time by which a list is sorted.
type Dated struct {
	Since  time.Time `query:"since" doc:"At or after this time"`
	Before time.Time `query:"before" doc:"Before this time"`
}

// Paged is which part of a list is asked for.
type Paged struct {
	Limit     int    `query:"limit" minimum:"1" maximum:"500" default:"50" doc:"Most items on the page"`
	PageToken string `query:"pageToken" maxLength:"2048" doc:"nextPageToken of the page before, for the same filters and order"`
	Order     string `query:"order" enum:"newest,oldest" default:"newest" doc:"Which come first"`
}

// RunList is a page of runs.
type RunList struct {
	Paged
	Runs
}

// Query is the page as the store takes it.
func (l RunList) Query() catalog.RunQuery {
	q := l.Runs.Query()
	q.OldestFirst, q.Limit, q.PageToken = l.Order == "oldest", l.Limit, l.PageToken
	return q
}

// ResultList is a page of results.
type ResultList struct {
	Paged
	Results
}

// Query is the page as the store takes it.
func (l ResultList) Query() catalog.ResultQuery {
	q := l.Results.Query()
	q.OldestFirst, q.Limit, q.PageToken = l.Order == "oldest", l.Limit, l.PageToken
	return q
}

// InterruptionList is a page of interruptions.
type InterruptionList struct {
	Paged
	Interruptions
}

// Query is the page as the store takes it.
func (l InterruptionList) Query() catalog.InterruptionQuery {
	return catalog.InterruptionQuery{RunKey: l.Run, Node: l.Node, Kind: l.Kind, Since: l.Since, Before: l.Before,
		OldestFirst: l.Order == "oldest", Limit: l.Limit, PageToken: l.PageToken}
}

// Comparison says what to compare and by what.
type Comparison struct {
	Run  []string `query:"run,explode" maxItems:"500" doc:"Keys of runs; without any, all that match the other filters"`
	By   []string `query:"by,explode" maxItems:"12" enum:"model,benchmark,gpuModel,gpuCount,engine,engineVersion,driverVersion,instanceType,capacityType,region,imageDigest,run" doc:"What the configurations are told apart by; runs that are the same in it are one configuration (default: run)"`
	Base string   `query:"base" maxLength:"512" doc:"Name of the configuration to compare with, or a run that is in it; the first by default"`
	All  bool     `query:"all" doc:"Compare invalid runs too"`
	Runs
}

// Pareto says what to choose from.
type Pareto struct {
	Run        []string `query:"run,explode" maxItems:"500" doc:"Keys of runs; without any, all that match the other filters"`
	By         []string `query:"by,explode" maxItems:"12" enum:"model,benchmark,gpuModel,gpuCount,engine,engineVersion,driverVersion,instanceType,capacityType,region,imageDigest,run" doc:"What the configurations are told apart by (default: model, gpuCount, gpuModel, engine, engineVersion)"`
	Objectives []string `query:"objective,explode" maxItems:"3" enum:"throughput,latency,cost" doc:"What the frontier is of, at least two (default: all that are known)"`
	Latency    string   `query:"latency" enum:"ttftMedianMs,ttftP99Ms,tpotMedianMs,tpotP99Ms,itlMedianMs,itlP99Ms,e2elMedianMs,e2elP99Ms" default:"ttftP99Ms" doc:"Which latency"`
	All        bool     `query:"all" doc:"Use invalid runs too"`
	Runs
}

// Regressions says which versions to follow.
type Regressions struct {
	Between   string  `query:"between" enum:"engineVersion,driverVersion" default:"engineVersion" doc:"The version that is followed"`
	Threshold float64 `query:"threshold" minimum:"0" maximum:"100" default:"5" doc:"Least loss to report, percent"`
	Runs
}
