// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/importer"
)

// OfRun is the path of everything about one run. It is exported only because huma
// passes over embedded types that are not; so is Paged.
type OfRun struct {
	Key string `path:"key" minLength:"1" maxLength:"512" doc:"Key of the run, with its slashes escaped as %2F" example:"gpu-workloads%2Fsweep-1a2b3c4d"`
}

// body is an answer.
type body[T any] struct{ Body T }

// versioned is an answer with the revision it shows.
type versioned[T any] struct {
	ETag string `header:"ETag" doc:"Revision of the run, for If-Match"`
	Body T
}

func etag(revision int64) string { return `"` + strconv.FormatInt(revision, 10) + `"` }

func (a *api) registerRuns() {
	op := a.write("put-run", http.MethodPut, "/v1/runs/{key}", "Create a run or update it")
	op.Errors = append(op.Errors, http.StatusPreconditionFailed)
	huma.Register(a.huma, op, func(ctx context.Context, in *struct {
		OfRun
		IfMatch string `header:"If-Match" doc:"Only if the run still has this revision"`
		Body    catalog.Run
	}) (*versioned[catalog.Run], error) {
		if err := catalog.ValidateKey(in.Key); err != nil {
			return nil, invalid(err)
		}
		if err := in.Body.Validate(); err != nil {
			return nil, invalid(err)
		}
		revision := int64(0)
		if in.IfMatch != "" {
			var err error
			if revision, err = strconv.ParseInt(strings.Trim(in.IfMatch, `"`), 10, 64); err != nil || revision < 1 {
				return nil, huma.Error412PreconditionFailed("If-Match is not an ETag this run had; send the one of GET /v1/runs/{key}")
			}
		}
		run, revision, err := a.store.PutRun(ctx, in.Key, in.Body, revision)
		if err != nil {
			return nil, a.problem(err)
		}
		return &versioned[catalog.Run]{ETag: etag(revision), Body: run}, nil
	})
	huma.Register(a.huma, read("get-run", "/v1/runs/{key}", "A run with its segments, interruptions, telemetry and results", http.StatusNotFound),
		func(ctx context.Context, in *OfRun) (*versioned[catalog.Detail], error) {
			run, revision, err := a.store.GetRunRevision(ctx, in.Key)
			if err != nil {
				return nil, a.problem(err)
			}
			return &versioned[catalog.Detail]{ETag: etag(revision), Body: run}, nil
		})
	huma.Register(a.huma, a.write("put-segment", http.MethodPut, "/v1/runs/{key}/segments/{podUID}", "Tell of one pod's stretch of a run"),
		func(ctx context.Context, in *struct {
			OfRun
			PodUID string `path:"podUID" minLength:"1" maxLength:"128"`
			Body   catalog.Segment
		}) (*body[catalog.Segment], error) {
			if err := in.Body.Validate(); err != nil {
				return nil, invalid(err)
			}
			segment, err := a.store.PutSegment(ctx, in.Key, in.PodUID, in.Body)
			return &body[catalog.Segment]{segment}, a.problem(err)
		})
	huma.Register(a.huma, a.write("put-interruption", http.MethodPut, "/v1/runs/{key}/interruptions/{noticeID}", "Tell what is known of an interruption"),
		func(ctx context.Context, in *struct {
			OfRun
			NoticeID string `path:"noticeID" minLength:"1" maxLength:"253"`
			Body     catalog.Interruption
		}) (*body[catalog.Interruption], error) {
			if err := in.Body.Validate(); err != nil {
				return nil, invalid(err)
			}
			interruption, err := a.store.PutInterruption(ctx, in.Key, in.NoticeID, in.Body)
			return &body[catalog.Interruption]{interruption}, a.problem(err)
		})
	huma.Register(a.huma, a.write("put-telemetry", http.MethodPut, "/v1/runs/{key}/telemetry/{podUID}", "Replace the summary of a pod's GPUs"),
		func(ctx context.Context, in *struct {
			OfRun
			PodUID string `path:"podUID" minLength:"1" maxLength:"128"`
			Body   catalog.Telemetry
		}) (*body[catalog.Telemetry], error) {
			if err := in.Body.Validate(); err != nil {
				return nil, invalid(err)
			}
			telemetry, err := a.store.PutTelemetry(ctx, in.Key, in.PodUID, in.Body)
			return &body[catalog.Telemetry]{telemetry}, a.problem(err)
		})
	huma.Register(a.huma, read("get-telemetry", "/v1/runs/{key}/telemetry", "The telemetry of a run, one entry per pod", http.StatusNotFound),
		func(ctx context.Context, in *OfRun) (*body[catalog.Page[catalog.Telemetry]], error) {
			run, _, err := a.store.GetRunRevision(ctx, in.Key)
			return &body[catalog.Page[catalog.Telemetry]]{catalog.Page[catalog.Telemetry]{Items: run.Telemetry}}, a.problem(err)
		})
}

func (a *api) registerImports() {
	op := a.write("import", http.MethodPost, "/v1/imports", "Take in a result file of a run")
	op.Description = "The format is found from the content: vLLM's bench serve and bench-runner are read, others are refused by name. " +
		"The same content for the same run again is answered with the first import and 200. " +
		"Other content under a file name the run has takes the place of the earlier."
	op.DefaultStatus = http.StatusCreated
	op.Errors = append(op.Errors, http.StatusUnsupportedMediaType)
	// The importer checks the body: Python's NaN is no JSON, and it names the format.
	op.SkipValidateBody = true
	op.RequestBody = &huma.RequestBody{Required: true, Description: "The result file as the benchmark saved it", Content: map[string]*huma.MediaType{
		"application/json": {Schema: &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true}}}}
	op.MaxBodyBytes, op.BodyReadTimeout = importer.MaxBytes, 2*time.Minute
	op.Responses = map[string]*huma.Response{"200": {Description: "The run has had this content before"}}
	huma.Register(a.huma, op, func(ctx context.Context, in *struct {
		Run     string `query:"run" required:"true" minLength:"1" maxLength:"512" doc:"Key of the run" example:"gpu-workloads/sweep-1a2b3c4d"`
		File    string `query:"file" maxLength:"255" doc:"Name of the file"`
		RawBody []byte `contentType:"application/json"`
	}) (*struct {
		Status int
		Body   catalog.Import
	}, error) {
		parsed, err := importer.Parse(in.File, in.RawBody)
		if err != nil {
			a.metrics.imports.WithLabelValues("refused").Inc()
			var unsupported *importer.UnsupportedError
			if errors.As(err, &unsupported) {
				return nil, huma.Error415UnsupportedMediaType(err.Error())
			}
			return nil, invalid(err)
		}
		imported, created, err := a.store.Import(ctx, in.Run, in.File, parsed.Format, in.RawBody, parsed.Results)
		if err != nil {
			return nil, a.problem(err)
		}
		out := &struct {
			Status int
			Body   catalog.Import
		}{http.StatusOK, imported}
		if created {
			out.Status = http.StatusCreated
		}
		a.metrics.imports.WithLabelValues(map[bool]string{true: "created", false: "repeated"}[created]).Inc()
		return out, nil
	})
}
