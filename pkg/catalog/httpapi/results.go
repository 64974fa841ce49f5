// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/filter"
)

// stored is an answer that is JSON already, in parts that are written as they are.
type stored struct {
	ContentType string `header:"Content-Type"`
	Body        func(huma.Context)
}

// download is an answer to be kept as a file.
type download struct {
	ContentType string `header:"Content-Type"`
	Disposition string `header:"Content-Disposition"`
	Body        []byte
}

func storedJSON(write func(io.Writer)) *stored {
	return &stored{"application/json", func(ctx huma.Context) { write(ctx.BodyWriter()) }}
}

// passedOn describes a read whose answer is JSON of the database, which has the
// type's schema.
func passedOn[T any](a *api, op huma.Operation) huma.Operation {
	schema := a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[T](), true, "")
	op.Responses["200"] = &huma.Response{Description: "OK", Content: map[string]*huma.MediaType{"application/json": {Schema: schema}}}
	return op
}

func (a *api) registerResults() {
	list := passedOn[catalog.Page[catalog.Result]](a, conditional("list-results", "/v1/results", "Results, those of the newest import first"))
	huma.Register(a.huma, list, func(ctx context.Context, in *filter.ResultList) (*stored, error) {
		page, err := a.store.ListResultsJSON(ctx, in.Query())
		if err != nil {
			return nil, a.problem(err)
		}
		return storedJSON(func(w io.Writer) { writePage(w, page) }), nil
	})
	one := passedOn[catalog.Result](a, conditional("get-result", "/v1/results/{id}", "One result, also one whose file has been replaced", http.StatusNotFound))
	huma.Register(a.huma, one, func(ctx context.Context, in *struct {
		ID string `path:"id" minLength:"1" maxLength:"64" doc:"Name of the result" example:"3f0c1c0e-8a52-5a3c-9a52-4b3a6f7f0c11"`
	}) (*stored, error) {
		result, err := a.store.ResultJSON(ctx, in.ID)
		if err != nil {
			return nil, a.problem(err)
		}
		return storedJSON(func(w io.Writer) { _, _ = w.Write(result) }), nil // an answer is held until it is whole
	})
	file := read("get-file", "/v1/imports/{id}/file", "The file of an import, as it came", http.StatusNotFound)
	file.Description = "Decompressed, if it came compressed. Files that were imported before the catalog kept them are not found."
	file.Responses = map[string]*huma.Response{"200": {Description: "The file", Content: map[string]*huma.MediaType{"application/octet-stream": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}}}
	huma.Register(a.huma, file, func(ctx context.Context, in *struct {
		ID string `path:"id" minLength:"1" maxLength:"64" doc:"Name of the import"`
	}) (*download, error) {
		name, content, err := a.store.File(ctx, in.ID)
		if err != nil {
			return nil, a.problem(err)
		}
		return &download{"application/octet-stream", mime.FormatMediaType("attachment", map[string]string{"filename": name}), content}, nil
	})
}

// writePage writes a page as JSON. Its items are passed on as they are, into memory that
// is there already: a list is the most that reads allocate.
func writePage(w io.Writer, page catalog.Page[json.RawMessage]) {
	write := func(text []byte) { _, _ = w.Write(text) } // an answer is held until it is whole
	comma := []byte(",")
	write([]byte(`{"items":[`))
	for n, item := range page.Items {
		if n > 0 {
			write(comma)
		}
		write(item)
	}
	write([]byte(`],"nextPageToken":"`))
	write([]byte(page.NextPageToken)) // base64, which needs no quoting
	write([]byte("\"}\n"))
}
