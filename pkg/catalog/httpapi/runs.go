// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/importer"
)

// OfRun is the path of everything about one run. It is exported only because huma
// passes over embedded types that are not.
type OfRun struct {
	Key string `path:"key" minLength:"1" maxLength:"512" doc:"Key of the run, with its slashes escaped as %2F" example:"gpu-workloads%2Fsweep-1a2b3c4d"`
}

// body is an answer.
type body[T any] struct{ Body T }

// versioned is an answer with the revision it shows.
type versioned[T any] struct {
	ETag  string `header:"ETag" doc:"Revision of the run, for If-Match"`
	Cache string `header:"Cache-Control" doc:"no-store for a run that goes on: its cost grows without a new revision"`
	Body  T
}

func etag(revision int64) string { return `"` + strconv.FormatInt(revision, 10) + `"` }

// expectation is what a writer expects of the run, as the store takes it.
func expectation(ifMatch, ifNoneMatch string) (int64, error) {
	switch {
	case ifMatch != "" && ifNoneMatch != "":
		return 0, huma.Error422UnprocessableEntity("If-Match and If-None-Match exclude each other; send one of them")
	case ifNoneMatch == "*":
		return catalog.NotYet, nil
	case ifNoneMatch != "":
		return 0, huma.Error422UnprocessableEntity("If-None-Match of a write only takes *; leave it out to update the run whatever it is")
	case ifMatch == "*":
		return catalog.AnyRevision, nil
	case ifMatch == "":
		return 0, nil
	}
	revision, err := strconv.ParseInt(strings.Trim(ifMatch, `"`), 10, 64)
	if err != nil || revision < 1 {
		return 0, huma.Error412PreconditionFailed("If-Match is not an ETag this run had; send the one of GET /v1/runs/{key}")
	}
	return revision, nil
}

func (a *api) registerRuns() {
	op := a.write("put-run", http.MethodPut, "/v1/runs/{key}", "Create a run or update it")
	op.Errors = append(op.Errors, http.StatusPreconditionFailed)
	huma.Register(a.huma, op, func(ctx context.Context, in *struct {
		OfRun
		IfMatch     string `header:"If-Match" doc:"Only if the run still has this revision; * for any"`
		IfNoneMatch string `header:"If-None-Match" doc:"Only *: only if there is no such run yet"`
		Body        catalog.Run
	}) (*versioned[catalog.Run], error) {
		if err := catalog.ValidateKey(in.Key); err != nil {
			return nil, invalid(err)
		}
		if err := in.Body.Validate(); err != nil {
			return nil, invalid(err)
		}
		expected, err := expectation(in.IfMatch, in.IfNoneMatch)
		if err != nil {
			return nil, err
		}
		run, revision, err := a.store.PutRun(ctx, in.Key, in.Body, expected)
		if err != nil {
			return nil, a.problem(err)
		}
		return &versioned[catalog.Run]{ETag: etag(revision), Cache: "no-store", Body: run}, nil
	})
	getRun := conditional("get-run", "/v1/runs/{key}", "A run with its segments, interruptions, telemetry and results", http.StatusNotFound)
	getRun.Parameters = nil // it reads the header itself
	huma.Register(a.huma, getRun,
		func(ctx context.Context, in *struct {
			OfRun
			IfNoneMatch string `header:"If-None-Match" doc:"ETags of the answers the caller has; a run that goes on is always answered, for its cost grows without a new revision"`
		}) (*versioned[catalog.Detail], error) {
			run, revision, err := a.store.GetRunRevision(ctx, in.Key)
			if err != nil {
				return nil, a.problem(err)
			}
			ended := run.Status == catalog.Succeeded || run.Status == catalog.Failed
			if ended && in.IfNoneMatch != "" && matches(in.IfNoneMatch, etag(revision)) {
				return nil, huma.ErrorWithHeaders(huma.Status304NotModified(), http.Header{"ETag": {etag(revision)}})
			}
			answer := &versioned[catalog.Detail]{ETag: etag(revision), Cache: "no-cache", Body: run}
			if !ended {
				answer.Cache = "no-store"
			}
			return answer, nil
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
	huma.Register(a.huma, conditional("get-telemetry", "/v1/runs/{key}/telemetry", "The telemetry of a run, one entry per pod, with how it went over time", http.StatusNotFound),
		func(ctx context.Context, in *OfRun) (*body[catalog.Page[catalog.Telemetry]], error) {
			telemetry, err := a.store.GetTelemetry(ctx, in.Key)
			return &body[catalog.Page[catalog.Telemetry]]{catalog.Page[catalog.Telemetry]{Items: telemetry}}, a.problem(err)
		})
}

func (a *api) registerImports() {
	op := a.write("import", http.MethodPost, "/v1/imports", "Take in a result file of a run")
	op.Description = "The format is found from the content: " + strings.Join(importer.Formats(), ", ") + "; others are refused by name. " +
		"The file may be compressed with gzip, with or without Content-Encoding. " +
		"The same content for the same run again is answered with the first import and 200. " +
		"Other content under a file name the run has takes the place of the earlier."
	op.DefaultStatus = http.StatusCreated
	op.Errors = append(op.Errors, http.StatusUnsupportedMediaType)
	op.Middlewares = append(op.Middlewares, a.receive)
	op.Responses = map[string]*huma.Response{"200": {Description: "The run has had this content before", Content: map[string]*huma.MediaType{
		"application/json": {Schema: a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[catalog.Import](), true, "")}}}}
	huma.Register(a.huma, op, func(ctx context.Context, in *fileOfRun) (*struct {
		Status int
		Body   catalog.Import
	}, error) {
		if in.Encoding != "" && in.Encoding != "gzip" && in.Encoding != "identity" {
			a.metrics.imports.WithLabelValues("refused").Inc()
			return nil, huma.Error415UnsupportedMediaType(fmt.Sprintf("Content-Encoding %q is not read; use gzip or none", in.Encoding))
		}
		content, parsed, done, err := a.readFile(ctx, in.File, in.content)
		defer done()
		if errors.Is(err, errBusy) {
			return nil, huma.ErrorWithHeaders(huma.Error503ServiceUnavailable(err.Error()), http.Header{"Retry-After": {"5"}})
		}
		if err != nil {
			a.metrics.imports.WithLabelValues("refused").Inc()
			var unsupported *importer.UnsupportedError
			if errors.As(err, &unsupported) {
				return nil, huma.Error415UnsupportedMediaType(err.Error())
			}
			return nil, invalid(err)
		}
		imported, created, err := a.store.Import(ctx, in.Run, in.File, parsed.Format, content, parsed.Results)
		if err != nil {
			return nil, a.problem(err)
		}
		imported.Notes = parsed.Notes
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
	// It is told of afterwards: huma reads the bodies that it knows of, and checks them as
	// JSON, which Python's NaN is not. The importer checks this one, and names the format.
	a.huma.OpenAPI().Paths[op.Path].Post.RequestBody = &huma.RequestBody{Required: true, Description: "The result file as the benchmark saved it", Content: map[string]*huma.MediaType{
		"application/json":     {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}},
		"application/x-ndjson": {Schema: &huma.Schema{}}, "text/plain": {Schema: &huma.Schema{Type: huma.TypeString}}, "text/csv": {Schema: &huma.Schema{Type: huma.TypeString}}}}
}

// fileOfRun is a request that brings a result file.
type fileOfRun struct {
	Run      string `query:"run" required:"true" minLength:"1" maxLength:"512" doc:"Key of the run" example:"gpu-workloads/sweep-1a2b3c4d"`
	File     string `query:"file" maxLength:"255" doc:"Name of the file"`
	Encoding string `header:"Content-Encoding" doc:"How the file is compressed: gzip, or not at all"`
	content  []byte
}

const (
	// fileTime is what a file may take to arrive.
	fileTime = 2 * time.Minute
	// mostAnnounced is the memory that is made for a file before any of it arrived.
	mostAnnounced = 16 << 20
)

// Resolve reads the file. huma would have it grow in a buffer to twice its size, and
// several files at once are what the catalog takes most memory for.
func (f *fileOfRun) Resolve(ctx huma.Context) []error {
	_ = ctx.SetReadDeadline(time.Now().Add(fileTime))                   // where it cannot be set, the server's own holds
	length, _ := strconv.ParseInt(ctx.Header("Content-Length"), 10, 64) // 0 if it does not say
	if length > importer.MaxBytes {
		return []error{tooLarge()}
	}
	content := bytes.NewBuffer(make([]byte, 0, min(max(length, 0), mostAnnounced)+bytes.MinRead))
	_, err := content.ReadFrom(io.LimitReader(ctx.BodyReader(), importer.MaxBytes+1))
	var late net.Error
	switch {
	case errors.As(err, &late) && late.Timeout():
		return []error{huma.Error408RequestTimeout("the file did not arrive in " + fileTime.String())}
	case err != nil:
		return []error{huma.Error400BadRequest("the file did not arrive whole; send it again")}
	case content.Len() > importer.MaxBytes:
		return []error{tooLarge()}
	}
	f.content = content.Bytes()
	return nil
}

func tooLarge() error {
	return huma.Error413RequestEntityTooLarge(fmt.Sprintf("the file has more than the %d bytes that a result file may have; split it", importer.MaxBytes))
}
