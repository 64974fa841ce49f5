// SPDX-License-Identifier: Apache-2.0

package httpapi_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/parquet-go/parquet-go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/auth"
	"github.com/spotbench/spotbench/pkg/catalog/export"
	"github.com/spotbench/spotbench/pkg/catalog/httpapi"
)

// gzipped is a text as gzip.
func gzipped(t *testing.T, from io.Reader) string {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := io.Copy(z, from); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for n := range p {
		p[n] = ' '
	}
	return len(p), nil
}

func TestAReadThatTheCallerHasIs304(t *testing.T) {
	s := newStage(t)
	if resp, body := s.send(t, "PUT", "/v1/runs/ns%2Fcached", s.writer, `{"model":"org/cached","status":"succeeded"}`); resp.StatusCode != http.StatusOK {
		t.Fatal(body)
	}
	for _, path := range []string{"/v1/runs/ns%2Fcached", "/v1/runs?model=org/cached", "/v1/results?run=ns/cached", "/v1/interruptions?run=ns/cached", "/v1/runs/ns%2Fcached/telemetry"} {
		first, _ := s.send(t, "GET", path, "", "")
		tag := first.Header.Get("ETag")
		if first.StatusCode != http.StatusOK || tag == "" {
			t.Fatalf("%s: %s, ETag %q", path, first.Status, tag)
		}
		for _, header := range []string{tag, "W/" + tag, `"other", ` + tag, "*"} {
			resp, body := s.send(t, "GET", path, "", "", "If-None-Match", header)
			if resp.StatusCode != http.StatusNotModified || body != "" || resp.Header.Get("ETag") != tag {
				t.Errorf("%s with %s: %s %q, ETag %q", path, header, resp.Status, body, resp.Header.Get("ETag"))
			}
		}
		if resp, body := s.send(t, "GET", path, "", "", "If-None-Match", `"other"`); resp.StatusCode != http.StatusOK || body == "" {
			t.Errorf("%s with another tag: %s", path, resp.Status)
		}
		s.send(t, "PUT", "/v1/runs/ns%2Fcached/interruptions/n", s.writer, `{"node":"`+path[4:8]+`"}`)
		if path == "/v1/runs/ns%2Fcached" || strings.Contains(path, "interruptions") {
			if resp, _ := s.send(t, "GET", path, "", "", "If-None-Match", tag); resp.StatusCode != http.StatusOK {
				t.Errorf("%s after a change: %s", path, resp.Status)
			}
		}
	}
	// A run that goes on costs more each second without a write.
	first, _ := s.send(t, "PUT", "/v1/runs/ns%2Fgoes-on", s.writer, `{"status":"running"}`)
	if resp, _ := s.send(t, "GET", "/v1/runs/ns%2Fgoes-on", "", "", "If-None-Match", first.Header.Get("ETag")); resp.StatusCode != http.StatusOK {
		t.Errorf("a run that goes on: %s", resp.Status)
	}
}

func TestAWriteSaysWhatItExpectsOfTheRun(t *testing.T) {
	s := newStage(t)
	steps := []struct {
		header, value string
		status        int
	}{
		{"If-Match", "*", 404},        // there is none yet
		{"If-None-Match", "*", 200},   // made
		{"If-None-Match", "*", 412},   // there now
		{"If-Match", "*", 200},        // whatever it is
		{"If-Match", `"2"`, 200},      // made, then changed once
		{"If-Match", `"2"`, 412},      // changed since
		{"If-None-Match", `"1"`, 422}, // nothing a write can mean
	}
	for n, step := range steps {
		if resp, body := s.send(t, "PUT", "/v1/runs/ns%2Fexpected", s.writer, `{"model":"m"}`, step.header, step.value); resp.StatusCode != step.status {
			t.Errorf("step %d, %s: %s: %s %s, want %d", n, step.header, step.value, resp.Status, body, step.status)
		}
	}
}

func TestExportsHoldEveryResultOfTheList(t *testing.T) {
	s := newStage(t)
	s.send(t, "PUT", "/v1/runs/ns%2Fexport", s.writer, `{"model":"org/export"}`)
	const rows = 1203 // three pages of at most 500
	var file strings.Builder
	for n := range rows {
		fmt.Fprintf(&file, `{"model_id":"org/export","num_prompts":%d,"completed":%d,"duration":2}`+"\n", n+1, n)
	}
	resp, body := s.send(t, "POST", "/v1/imports?run=ns/export&file=sweep.jsonl", s.writer, gzipped(t, strings.NewReader(file.String())), "Content-Encoding", "gzip", "Content-Type", "application/x-ndjson")
	if resp.StatusCode != http.StatusCreated {
		t.Fatal(resp.Status, body)
	}
	// The same without compression is the same import.
	if again, other := s.send(t, "POST", "/v1/imports?run=ns/export&file=sweep.jsonl", s.writer, file.String()); again.StatusCode != http.StatusOK || other != body {
		t.Errorf("without compression: %s", again.Status)
	}
	wanted := make([]int64, rows)
	for n := range wanted {
		wanted[n] = int64(n)
	}
	got := map[export.Format][]int64{}
	for _, format := range []export.Format{export.NDJSON, export.CSV, export.Parquet} {
		resp, body := s.send(t, "GET", "/v1/exports/results?run=ns/export&format="+string(format), "", "")
		if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != format.MediaType() {
			t.Fatalf("%s: %s %s", format, resp.Status, resp.Header.Get("Content-Type"))
		}
		switch format {
		case export.NDJSON:
			for line := range strings.Lines(body) {
				var r catalog.Result
				if err := json.Unmarshal([]byte(line), &r); err != nil {
					t.Fatal(err)
				}
				got[format] = append(got[format], r.Completed)
			}
		case export.CSV:
			records, err := csv.NewReader(strings.NewReader(body)).ReadAll()
			if err != nil {
				t.Fatal(err)
			}
			at := slices.Index(records[0], "completed")
			for _, record := range records[1:] {
				var n int64
				if _, err := fmt.Sscan(record[at], &n); err != nil {
					t.Fatal(err)
				}
				got[format] = append(got[format], n)
			}
		case export.Parquet:
			table, err := parquet.Read[export.Row](strings.NewReader(body), int64(len(body)))
			if err != nil {
				t.Fatal(err)
			}
			for _, row := range table {
				got[format] = append(got[format], *row.Completed)
			}
		}
		slices.Sort(got[format])
		if diff := cmp.Diff(wanted, got[format]); diff != "" {
			t.Errorf("%s (-want +got)\n%.2000s", format, diff)
		}
	}
}

func TestAnExportOfOneCatalogIsAnImportOfAnother(t *testing.T) {
	s := newStage(t)
	for _, key := range []string{"ns%2Ffrom", "ns%2Fto"} {
		s.send(t, "PUT", "/v1/runs/"+key, s.writer, `{}`)
	}
	if resp, body := s.send(t, "POST", "/v1/imports?run=ns/from", s.writer, vllm+"\n"+strings.ReplaceAll(vllm, "10", "11")); resp.StatusCode != http.StatusCreated {
		t.Fatal(body)
	}
	_, lines := s.send(t, "GET", "/v1/exports/results?run=ns/from", "", "")
	if resp, body := s.send(t, "POST", "/v1/imports?run=ns/to&file=all.ndjson", s.writer, lines, "Content-Type", "application/x-ndjson"); resp.StatusCode != http.StatusCreated || !strings.Contains(body, `"format":"spotbench"`) {
		t.Fatal(resp.Status, body)
	}
	var all [2]catalog.Page[catalog.Result]
	for n, run := range []string{"from", "to"} {
		_, body := s.send(t, "GET", "/v1/results?run=ns/"+run, "", "")
		if err := json.Unmarshal([]byte(body), &all[n]); err != nil {
			t.Fatal(err)
		}
		for m := range all[n].Items {
			r := &all[n].Items[m]
			r.ID, r.ImportID, r.RunKey, r.File, r.Format, r.Settings = "", "", "", "", "", nil
		}
		slices.SortFunc(all[n].Items, func(a, b catalog.Result) int { return int(a.Completed - b.Completed) })
	}
	if diff := cmp.Diff(all[0].Items, all[1].Items); diff != "" || len(all[1].Items) != 2 {
		t.Errorf("(-exported +imported)\n%s", diff)
	}
}

// failing is a store whose list breaks after its first page.
type failing struct{ httpapi.Store }

func (failing) ListResults(_ context.Context, q catalog.ResultQuery) (catalog.Page[catalog.Result], error) {
	if q.PageToken != "" {
		return catalog.Page[catalog.Result]{}, errors.New("the database went away")
	}
	return catalog.Page[catalog.Result]{Items: []catalog.Result{{ID: "1"}}, NextPageToken: "2"}, nil
}

func TestAnExportThatBreaksOffCannotBeTakenForAWholeOne(t *testing.T) {
	web := httptest.NewServer(httpapi.New(httpapi.Options{Store: failing{}, Guard: auth.NewGuard(nil, nil), Registry: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler)}))
	defer web.Close()
	for _, format := range []string{"ndjson", "csv", "parquet"} {
		resp, err := http.Get(web.URL + "/v1/exports/results?format=" + format)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		if err == nil {
			t.Errorf("%s: it ends as if it were whole", format)
		}
	}
}

func TestImportsOfAnySizeAreAnsweredWithAClearProblem(t *testing.T) {
	s := newStage(t)
	s.send(t, "PUT", "/v1/runs/ns%2Flarge", s.writer, `{}`)
	const gigabyte = 1 << 30
	if resp, body := s.send(t, "POST", "/v1/imports?run=ns/large", s.writer, gzipped(t, io.LimitReader(endless{}, gigabyte))); resp.StatusCode != http.StatusUnprocessableEntity || !strings.Contains(body, "67108864 bytes") {
		t.Errorf("a zip bomb: %s %s", resp.Status, body)
	}
	if resp, body := s.send(t, "POST", "/v1/imports?run=ns/large", s.writer, vllm, "Content-Encoding", "br"); resp.StatusCode != http.StatusUnsupportedMediaType || !strings.Contains(body, "use gzip or none") {
		t.Errorf("another compression: %s %s", resp.Status, body)
	}
	// A body without an announced length; the server may hang up before it has all.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/v1/imports?run=ns/large", io.LimitReader(endless{}, gigabyte))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+s.writer)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Logf("the server hung up: %v", err)
	} else {
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("1 GB: %s", resp.Status)
		}
	}
	if resp, body := s.send(t, "GET", "/v1/results?run=ns/large", "", ""); resp.StatusCode != http.StatusOK || !strings.Contains(body, `"items":[]`) {
		t.Errorf("afterwards: %s %s", resp.Status, body)
	}
}

func TestAWriterWhoStopsSendingIsLetGoAndHoldsNobodyUp(t *testing.T) {
	s := newStage(t)
	address := strings.TrimPrefix(s.url, "http://")
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// It announces a body, sends a part and goes away: nothing of it may stay.
	fmt.Fprintf(conn, "PUT /v1/runs/ns%%2Fhalf HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"model\":\"m\"", s.writer)
	if resp, body := s.send(t, "PUT", "/v1/runs/ns%2Fwhole", s.writer, `{}`); resp.StatusCode != http.StatusOK {
		t.Errorf("another writer meanwhile: %s %s", resp.Status, body)
	}
	conn.Close()
	if resp, _ := s.send(t, "GET", "/v1/runs/ns%2Fhalf", "", ""); resp.StatusCode != http.StatusNotFound {
		t.Errorf("half a write made a run: %s", resp.Status)
	}
}
