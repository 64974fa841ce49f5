// SPDX-License-Identifier: Apache-2.0

package httpapi_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/spotbench/spotbench/pkg/catalog"
)

func TestAResultAndTheFileItCameFromAreFoundByTheirNames(t *testing.T) {
	s := newStage(t)
	s.send(t, "PUT", "/v1/runs/ns%2Fnamed", s.writer, `{"model":"org/named","status":"succeeded"}`)
	resp, body := s.send(t, "POST", "/v1/imports?run=ns/named&file=a%22b.json", s.writer, vllm)
	if resp.StatusCode != http.StatusCreated {
		t.Fatal(body)
	}
	var imported catalog.Import
	if err := json.Unmarshal([]byte(body), &imported); err != nil {
		t.Fatal(err)
	}
	resp, body = s.send(t, "GET", "/v1/results/"+imported.Results[0], "", "")
	var one catalog.Result
	if err := json.Unmarshal([]byte(body), &one); err != nil || one.RunKey != "ns/named" || one.ImportID != imported.ID || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		t.Errorf("%s %s, %v", resp.Status, body, err)
	}
	_, body = s.send(t, "GET", "/v1/results?run=ns/named", "", "")
	var page catalog.Page[catalog.Result]
	if err := json.Unmarshal([]byte(body), &page); err != nil || len(page.Items) != 1 || !cmp.Equal(page.Items[0], one) {
		t.Errorf("the list has %s, %v; want the result alone", body, err)
	}
	resp, body = s.send(t, "GET", "/v1/imports/"+imported.ID+"/file", "", "")
	if body != vllm || resp.Header.Get("Content-Disposition") != `attachment; filename="a\"b.json"` {
		t.Errorf("file: %s, %v, %d bytes", resp.Status, resp.Header, len(body))
	}
	for _, path := range []string{"/v1/results/none", "/v1/imports/none/file"} {
		if resp, _ := s.send(t, "GET", path, "", ""); resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
}
