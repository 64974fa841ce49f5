// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"iter"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/export"
	"github.com/spotbench/spotbench/pkg/catalog/filter"
)

// exportStall is how long the caller of an export may take for one page of it.
const exportStall = time.Minute

func (a *api) registerExports() {
	op := read("export-results", "/v1/exports/results", "All results that match, in one file")
	op.Description = "The answer is streamed. If the catalog fails on the way it ends the connection without an end of the body, so that a part is not taken for the whole."
	table := &huma.Schema{Type: huma.TypeString, Format: "binary"}
	content := map[string]*huma.MediaType{"application/x-ndjson": {Schema: a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[catalog.Result](), true, "")}, "text/csv": {Schema: &huma.Schema{Type: huma.TypeString}}, "application/vnd.apache.parquet": {Schema: table}}
	op.Responses = map[string]*huma.Response{"200": {Description: "The results", Content: content}}
	huma.Register(a.huma, op, func(ctx context.Context, in *struct {
		Format string `query:"format" enum:"ndjson,csv,parquet" default:"ndjson" doc:"ndjson: as /v1/results, one a line; csv and parquet: a column each, with its unit in its name"`
		filter.Results
	}) (*huma.StreamResponse, error) {
		query := in.Query()
		query.Limit = catalog.MaxLimit
		// The first page is read before the answer begins: a failure up to then has a status.
		first, err := a.store.ListResults(ctx, query)
		if err != nil {
			return nil, a.problem(err)
		}
		return &huma.StreamResponse{Body: func(out huma.Context) {
			_, w := humago.Unwrap(out)
			deadlines := http.NewResponseController(w)
			out.SetHeader("Content-Type", export.Format(in.Format).MediaType())
			out.SetHeader("Content-Disposition", `attachment; filename="results.`+in.Format+`"`)
			extend := func() {
				// Not every writer has a deadline; those without need no more time.
				_ = deadlines.SetWriteDeadline(time.Now().Add(exportStall))
			}
			if err := export.Write(out.BodyWriter(), export.Format(in.Format), a.pages(ctx, query, first, extend)); err != nil {
				a.log.Error("an export was broken off", "err", err)
				panic(http.ErrAbortHandler) // ends the connection
			}
		}}, nil
	})
}

// pages are the results from the first page on.
func (a *api) pages(ctx context.Context, query catalog.ResultQuery, page catalog.Page[catalog.Result], extend func()) iter.Seq2[catalog.Result, error] {
	return func(yield func(catalog.Result, error) bool) {
		for {
			extend()
			for _, r := range page.Items {
				if !yield(r, nil) {
					return
				}
			}
			if page.NextPageToken == "" {
				return
			}
			query.PageToken = page.NextPageToken
			var err error
			if page, err = a.store.ListResults(ctx, query); err != nil {
				yield(catalog.Result{}, err)
				return
			}
		}
	}
}
