// SPDX-License-Identifier: Apache-2.0

// Package filter has the filters of the catalog's lists and comparisons, once for
// all: the API's parameters, the client's queries and the command line's flags
// are made from the same types, so that they cannot drift apart. A field's tags
// are its name in a query, its description, and what values it takes.
package filter

import (
	"cmp"
	"slices"
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
	PageToken string `query:"pageToken" maxLength:"2048" doc:"nextPageToken of the page before, for the same filters, sort and order"`
	Order     string `query:"order" enum:"newest,oldest,desc,asc" default:"newest" doc:"Which come first; newest is the same as desc, oldest the same as asc"`
}

// ascending reports whether the least come first.
func (p Paged) ascending() bool { return Ascending(p.Order) }

// Ascending reports whether by that order the least or the oldest come first.
func Ascending(order string) bool { return order == "oldest" || order == "asc" }

// RunList is a page of runs.
type RunList struct {
	Paged
	Sort string `query:"sort" enum:"startedAt,finishedAt,key,model,benchmark,gpuModel,results,usdPerHour" default:"startedAt" doc:"What they are sorted by; those that do not have it are left out"`
	Runs
}

// Query is the page as the store takes it.
func (l RunList) Query() catalog.RunQuery {
	q := l.Runs.Query()
	q.Sort, q.OldestFirst, q.Limit, q.PageToken = l.Sort, l.ascending(), l.Limit, l.PageToken
	return q
}

// ResultList is a page of results.
type ResultList struct {
	Paged
	Sort string `query:"sort" enum:"importedAt,requestThroughput,outputThroughput,totalTokenThroughput,ttftMedianMs,ttftP99Ms,tpotMedianMs,tpotP99Ms,e2elMedianMs,e2elP99Ms,concurrency,requests,completed,outputTokens,durationSeconds" default:"importedAt" doc:"What they are sorted by; results that do not have the figure are left out. All but importedAt, requestThroughput, outputThroughput, ttftP99Ms and tpotP99Ms need one of the filters run and model"`
	Results
}

// Query is the page as the store takes it.
func (l ResultList) Query() catalog.ResultQuery {
	q := l.Results.Query()
	q.Sort, q.OldestFirst, q.Limit, q.PageToken = l.Sort, l.ascending(), l.Limit, l.PageToken
	return q
}

// InterruptionList is a page of interruptions.
type InterruptionList struct {
	Paged
	Sort string `query:"sort" enum:"noticeAt,workLostSeconds,node,kind" default:"noticeAt" doc:"What they are sorted by; those that do not have it are left out"`
	Interruptions
}

// Query is the page as the store takes it.
func (l InterruptionList) Query() catalog.InterruptionQuery {
	return catalog.InterruptionQuery{RunKey: l.Run, Node: l.Node, Kind: l.Kind, Since: l.Since, Before: l.Before,
		Sort: l.Sort, OldestFirst: l.ascending(), Limit: l.Limit, PageToken: l.PageToken}
}

// Pool says of which pools.
type Pool struct {
	Provider     string `query:"provider" maxLength:"64" example:"aws" doc:"Cloud"`
	Region       string `query:"region" maxLength:"128" doc:"Region"`
	Zone         string `query:"zone" maxLength:"128" doc:"Zone"`
	InstanceType string `query:"instanceType" maxLength:"128" doc:"Instance type"`
	CapacityType string `query:"capacityType" enum:"spot,on-demand" doc:"How it was bought"`
}

// InstanceList is a page of machines.
type InstanceList struct {
	Paged
	Sort string `query:"sort" enum:"startedAt,seenAt,noticeAt,node,instanceType" default:"startedAt" doc:"What they are sorted by; those that do not have it are left out"`
	Node string `query:"node" maxLength:"253" doc:"Name of the node"`
	Pool
}

// Query is the page as the store takes it.
func (l InstanceList) Query() catalog.InstanceQuery {
	return catalog.InstanceQuery{Provider: l.Provider, Region: l.Region, Zone: l.Zone, InstanceType: l.InstanceType, CapacityType: l.CapacityType, Node: l.Node,
		Sort: l.Sort, OldestFirst: l.ascending(), Limit: l.Limit, PageToken: l.PageToken}
}

// Models is the list of models.
type Models struct {
	GPUModel string `query:"gpuModel" maxLength:"128" doc:"Only models that ran on this GPU model" example:"H100-80GB"`
	Sort     string `query:"sort" enum:"name,runs,results,lastRunAt" default:"name" doc:"What they are sorted by"`
	Order    string `query:"order" enum:"asc,desc,oldest,newest" default:"asc" doc:"Which come first; oldest is the same as asc, newest the same as desc"`
}

// Of are those of the models that are asked for, in the order asked for.
func (m Models) Of(models []catalog.Model) []catalog.Model {
	kept := []catalog.Model{}
	for _, one := range models {
		if m.GPUModel == "" || slices.Contains(one.GPUModels, m.GPUModel) {
			kept = append(kept, one)
		}
	}
	direction := -1
	if m.Order == "" || Ascending(m.Order) {
		direction = 1
	}
	slices.SortStableFunc(kept, func(a, b catalog.Model) int {
		by := cmp.Compare(a.Name, b.Name)
		switch m.Sort {
		case "runs":
			by = cmp.Or(cmp.Compare(a.Runs, b.Runs), by)
		case "results":
			by = cmp.Or(cmp.Compare(a.Results, b.Results), by)
		case "lastRunAt":
			by = cmp.Or(a.LastRunAt.Compare(b.LastRunAt), by)
		}
		return direction * by
	})
	return kept
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
