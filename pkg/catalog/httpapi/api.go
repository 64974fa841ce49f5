// SPDX-License-Identifier: Apache-2.0

// Package httpapi is the catalog's REST API: JSON over HTTP with an OpenAPI 3.1
// description that follows from the code, problems as RFC 9457 describes them,
// and writes for those whom the guard lets in.
package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/auth"
	"github.com/spotbench/spotbench/pkg/risk"
)

// Store keeps the catalog. Its errors are catalog.ErrNotFound, ErrInvalid and
// ErrChanged; any other is a failure of the store.
type Store interface {
	PutRun(ctx context.Context, key string, update catalog.Run, ifRevision int64) (catalog.Run, int64, error)
	PutSegment(ctx context.Context, key, podUID string, update catalog.Segment) (catalog.Segment, error)
	PutInterruption(ctx context.Context, key, noticeID string, update catalog.Interruption) (catalog.Interruption, error)
	PutTelemetry(ctx context.Context, key, podUID string, telemetry catalog.Telemetry) (catalog.Telemetry, error)
	PutInstance(ctx context.Context, uid string, update catalog.Instance) (catalog.Instance, error)
	ListInstances(ctx context.Context, query catalog.InstanceQuery) (catalog.Page[catalog.Instance], error)
	Lives(ctx context.Context, since time.Time) ([]catalog.Instance, error)
	Savings(ctx context.Context, query catalog.SavingsQuery) (catalog.SavingsReport, error)
	Import(ctx context.Context, runKey, file, format string, content []byte, results []catalog.Result) (imported catalog.Import, created bool, err error)
	GetTelemetry(ctx context.Context, key string) ([]catalog.Telemetry, error)
	GetRunRevision(ctx context.Context, key string) (catalog.Detail, int64, error)
	ListRuns(ctx context.Context, query catalog.RunQuery) (catalog.Page[catalog.Summary], error)
	ListResults(ctx context.Context, query catalog.ResultQuery) (catalog.Page[catalog.Result], error)
	ListResultsJSON(ctx context.Context, query catalog.ResultQuery) (catalog.Page[json.RawMessage], error)
	ResultJSON(ctx context.Context, id string) (json.RawMessage, error)
	File(ctx context.Context, importID string) (name string, content []byte, err error)
	ListInterruptions(ctx context.Context, query catalog.InterruptionQuery) (catalog.Page[catalog.Interruption], error)
	ListModels(ctx context.Context) ([]catalog.Model, error)
	Measured(ctx context.Context, keys []string, query catalog.RunQuery) (runs []catalog.Detail, more bool, err error)
	CreateKey(ctx context.Context, key catalog.APIKey, hash []byte) (catalog.APIKey, error)
	RotateKey(ctx context.Context, id string, hash []byte, expires time.Time, overlap time.Duration, rotation string) (catalog.APIKey, error)
	RevokeKey(ctx context.Context, id string) error
	ListKeys(ctx context.Context) ([]catalog.APIKey, error)
	ListAudit(ctx context.Context, query catalog.AuditQuery) (catalog.Page[catalog.AuditEntry], error)
	Ping(ctx context.Context) error
}

// Guard decides what callers may do: it names the caller from the Authorization
// header, or its error is an *auth.Denied.
type Guard interface {
	Allow(ctx context.Context, authorization string, need catalog.Role) (auth.Identity, error)
}

// api is what the operations share.
type api struct {
	store   Store
	guard   Guard
	log     *slog.Logger
	metrics *metrics
	// readers says that reads need a caller who may read.
	readers bool
	limits  *auth.Limits
	guesses *auth.Limits
	// receiving and reading bound the imports at once.
	receiving, reading turns
	// hazards are assumed of pools until their machines have been observed.
	hazards risk.Book
	huma    huma.API
}

const securityScheme = "token"

// config is the head of the OpenAPI document. Its version is that of the API, not
// of the build, so that the document only changes with the API.
func config() huma.Config {
	c := huma.DefaultConfig("Spotbench catalog", "1.0.0")
	c.Info.Description = "Benchmark runs: where they ran, what that cost, how they were interrupted, and what they measured. " +
		"Every write may be repeated: updates merge into what is known, fields left out keep their value. " +
		"A run's key has slashes; escape them as %2F."
	c.Info.License = &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"}
	c.DocsPath, c.SchemasPath, c.CreateHooks = "", "", nil
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{securityScheme: {
		Type: "http", Scheme: "bearer",
		Description: "An API key of the catalog, a ServiceAccount's token for the audience " + auth.Audience + ", or an ID token of the OpenID Connect issuer it trusts",
	}}
	return c
}

// register adds every operation.
func (a *api) register(mux *http.ServeMux) {
	a.huma = humago.New(mux, config())
	a.registerRuns()
	a.registerLists()
	a.registerResults()
	a.registerComparisons()
	a.registerImports()
	a.registerInstances()
	a.registerExports()
	a.registerAccess()
}

// OpenAPI is the document of the API, as YAML.
func OpenAPI() ([]byte, error) {
	a := &api{}
	a.register(http.NewServeMux())
	return a.huma.OpenAPI().YAML()
}

// read describes an operation that anybody may call, unless reads need a token too.
func read(id, path, summary string, statuses ...int) huma.Operation {
	return huma.Operation{OperationID: id, Method: http.MethodGet, Path: path, Summary: summary, Errors: append(statuses, http.StatusUnprocessableEntity, http.StatusTooManyRequests, http.StatusServiceUnavailable)}
}

// conditional is a read that is answered by 304 to those who have its content.
func conditional(id, path, summary string, statuses ...int) huma.Operation {
	op := read(id, path, summary, statuses...)
	op.Parameters = []*huma.Param{{Name: "If-None-Match", In: "header", Description: "ETags of the answers the caller has", Schema: &huma.Schema{Type: huma.TypeString}}}
	op.Responses = map[string]*huma.Response{"304": {Description: "The answer is one the caller has"}}
	return op
}

// write describes an operation for writers.
func (a *api) write(id, method, path, summary string) huma.Operation {
	return huma.Operation{
		OperationID: id, Method: method, Path: path, Summary: summary,
		Errors:       []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity, http.StatusTooManyRequests, http.StatusServiceUnavailable},
		Security:     []map[string][]string{{securityScheme: {}}},
		Middlewares:  a.require(catalog.Writer),
		MaxBodyBytes: 4 << 20, BodyReadTimeout: 30 * time.Second,
	}
}

// problem turns an error into the answer the caller gets. What went wrong inside
// is logged, not told.
func (a *api) problem(err error) error {
	var field *catalog.InvalidField
	switch {
	case err == nil:
		return nil
	case errors.As(err, &field):
		return huma.Error422UnprocessableEntity("validation failed", &huma.ErrorDetail{Location: "query." + field.Name, Message: field.Problem})
	case errors.Is(err, catalog.ErrNotFound):
		return huma.Error404NotFound(err.Error())
	case errors.Is(err, catalog.ErrInvalid):
		return huma.Error422UnprocessableEntity(err.Error())
	case errors.Is(err, catalog.ErrForbidden):
		a.metrics.denied.WithLabelValues(http.StatusText(http.StatusForbidden)).Inc()
		a.log.Warn("a request was refused", "err", err)
		return huma.Error403Forbidden(err.Error())
	case errors.Is(err, catalog.ErrChanged):
		return huma.Error412PreconditionFailed(err.Error())
	case errors.Is(err, context.Canceled):
		return huma.NewError(499, "the caller went away")
	}
	a.log.Error("request failed", "err", err)
	return huma.Error503ServiceUnavailable("the catalog's database does not answer as it should; try again")
}

// invalid is the answer to a value that cannot be.
func invalid(err error) error { return huma.Error422UnprocessableEntity(err.Error()) }
