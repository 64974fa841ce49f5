// SPDX-License-Identifier: Apache-2.0

package httpapi_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

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

func TestASortedListIsPagedInOrderAndAWrongSortIsNamed(t *testing.T) {
	s := newStage(t)
	model := fmt.Sprintf("org/sorted-%d", time.Now().UnixNano())
	if resp, body := s.send(t, "PUT", "/v1/runs/ns%2Fsorted", s.writer, `{}`); resp.StatusCode != http.StatusOK {
		t.Fatal(body)
	}
	for _, rate := range []string{"3.5", "1", "22", "3.5", "8"} {
		file := strings.Replace(vllm, `"org/m"`, fmt.Sprintf("%q", model), 1)
		file = strings.Replace(file, `"duration":2`, fmt.Sprintf(`"duration":%d,"request_throughput":%s`, time.Now().UnixNano(), rate), 1)
		if resp, body := s.send(t, "POST", "/v1/imports?run=ns/sorted", s.writer, file); resp.StatusCode != http.StatusCreated {
			t.Fatal(body)
		}
	}
	var rates []float64
	for token := ""; ; {
		resp, body := s.send(t, "GET", "/v1/results?limit=2&sort=requestThroughput&order=desc&model="+model+"&pageToken="+token, "", "")
		var page struct {
			Items         []struct{ RequestThroughput float64 }
			NextPageToken string
		}
		if err := json.Unmarshal([]byte(body), &page); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s %s", resp.Status, body)
		}
		for _, r := range page.Items {
			rates = append(rates, r.RequestThroughput)
		}
		if token = page.NextPageToken; token == "" {
			break
		}
		forged, err := base64.RawURLEncoding.DecodeString(token)
		if err != nil {
			t.Fatal(err)
		}
		forged = regexp.MustCompile(`"v":"[^"]*"`).ReplaceAll(forged, []byte(`"v":"many"`))
		path := "/v1/results?limit=2&sort=requestThroughput&order=desc&model=" + model + "&pageToken=" + base64.RawURLEncoding.EncodeToString(forged)
		if resp, body := s.send(t, "GET", path, "", ""); resp.StatusCode != http.StatusUnprocessableEntity || !strings.Contains(body, "pageToken") {
			t.Errorf("a forged token: %s %s", resp.Status, body)
		}
	}
	if want := []float64{22, 8, 3.5, 3.5, 1}; !slices.Equal(rates, want) {
		t.Errorf("sorted %v, want %v", rates, want)
	}
	for path, location := range map[string]string{
		"/v1/results?sort=requests": "query.sort", "/v1/results?sort=colour": "query.sort", "/v1/results?pageToken=x": "query.pageToken", "/v1/runs?sort=model&pageToken=x": "query.pageToken",
		"/v1/instances?order=up": "query.order", "/v1/models?sort=colour": "query.sort", "/v1/interruptions?sort=colour": "query.sort",
	} {
		if resp, body := s.send(t, "GET", path, "", ""); resp.StatusCode != http.StatusUnprocessableEntity || !strings.Contains(body, fmt.Sprintf("%q", location)) {
			t.Errorf("%s: %s %s, want it to name %s", path, resp.Status, body, location)
		}
	}
}
