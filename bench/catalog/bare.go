// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/compare"
	"github.com/spotbench/spotbench/pkg/catalog/importer"
	"github.com/spotbench/spotbench/pkg/catalog/postgres"
)

// The catalog's own statements, as they are without a page token.
const (
	pointSQL = `SELECT body, imported_at, id::text FROM results WHERE id = $1`
	listSQL  = `SELECT body, imported_at, id::text FROM results WHERE NOT superseded AND model = $1 AND gpu_model = $2 ORDER BY imported_at DESC, id DESC LIMIT 51`
)

// serveBare answers the workloads' requests with net/http and pgx alone: the same
// statements, and the same content byte for byte. Runs, comparisons and writes use the
// catalog's store for their statements, the line of the log of writes among them, and
// nothing else of it. The address is the first line of its output.
func serveBare(ctx context.Context, url string, out io.Writer) error {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return err
	}
	config.MaxConns = postgres.DefaultConnections
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	defer pool.Close()
	store, err := postgres.Open(ctx, postgres.Options{URL: url})
	if err != nil {
		return err
	}
	defer store.Close()
	mux := http.NewServeMux()
	handle := func(pattern string, do func(r *http.Request) ([]byte, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			text, err := do(r)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", strconv.Itoa(len(text)))
			_, _ = w.Write(text) // the caller is gone if this fails
		})
	}
	handle("GET /v1/results/{id}", func(r *http.Request) ([]byte, error) {
		id, err := uuid.Parse(r.PathValue("id"))
		if err != nil {
			return nil, err
		}
		var body []byte
		var at time.Time
		var name string
		err = pool.QueryRow(r.Context(), pointSQL, id).Scan(&body, &at, &name)
		return body, err
	})
	handle("GET /v1/results", func(r *http.Request) ([]byte, error) {
		query := r.URL.Query()
		rows, err := pool.Query(r.Context(), listSQL, query.Get("model"), query.Get("gpuModel"))
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		text := []byte(`{"items":[`)
		var at time.Time
		var name, token string
		for n := 0; rows.Next(); n++ {
			if n == 50 {
				token, err = after(at, name)
				break
			}
			var body []byte
			if err := rows.Scan(&body, &at, &name); err != nil {
				return nil, err
			}
			if n > 0 {
				text = append(text, ',')
			}
			text = append(text, body...)
		}
		rows.Close()
		return append(text, `],"nextPageToken":"`+token+"\"}\n"...), errors.Join(err, rows.Err())
	})
	handle("GET /v1/runs/{key}", func(r *http.Request) ([]byte, error) {
		run, err := store.GetRun(r.Context(), r.PathValue("key"))
		if err != nil {
			return nil, err
		}
		return encode(run)
	})
	handle("GET /v1/compare", func(r *http.Request) ([]byte, error) {
		runs, _, err := store.Measured(r.Context(), r.URL.Query()["run"], catalog.RunQuery{})
		if err != nil {
			return nil, err
		}
		report, err := compare.Compare(runs, compare.Options{Invalid: true})
		if err != nil {
			return nil, err
		}
		return encode(report)
	})
	handle("PUT /v1/runs/{key}", func(r *http.Request) ([]byte, error) {
		var run catalog.Run
		if err := json.NewDecoder(r.Body).Decode(&run); err != nil {
			return nil, err
		}
		run, _, err := store.PutRun(filed(r.Context(), "put-run", r.URL.RequestURI()), r.PathValue("key"), run, 0)
		if err != nil {
			return nil, err
		}
		return encode(run)
	})
	handle("POST /v1/imports", func(r *http.Request) ([]byte, error) {
		content, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		parsed, err := importer.Parse("", content)
		if err != nil {
			return nil, err
		}
		imported, _, err := store.Import(filed(r.Context(), "import", r.URL.RequestURI()), r.URL.Query().Get("run"), r.URL.Query().Get("file"), parsed.Format, content, parsed.Results)
		if err != nil {
			return nil, err
		}
		return encode(imported)
	})
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(out, listener.Addr()); err != nil {
		return err
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		<-ctx.Done()
		_ = server.Close() // it ends with the benchmark
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// after is the token of the page behind a row.
func after(at time.Time, id string) (string, error) {
	text, err := json.Marshal(struct {
		At   time.Time `json:"t"`
		Keys []string  `json:"k"`
	}{at.UTC(), []string{id}})
	return base64.RawURLEncoding.EncodeToString(text), err
}

// encode writes JSON as the catalog does.
func encode(v any) ([]byte, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(v)
	return text.Bytes(), err
}
