// SPDX-License-Identifier: Apache-2.0

package delivery_test

import (
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spotbench/spotbench/pkg/agent/delivery"
	"github.com/spotbench/spotbench/pkg/agent/spool"
)

func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDeliver(t *testing.T) {
	var status int
	var got *http.Request
	var body string
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		got, body = r, string(data)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, `{"detail":"the field gpuCount is negative"}`)
	}))
	defer server.Close()
	ca := write(t, "ca.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	token := write(t, "token", []byte("secret-token\n"))
	client, err := delivery.New(server.URL+"/", token, ca)
	if err != nil {
		t.Fatal(err)
	}
	entry := spool.Entry{Method: http.MethodPut, Path: "/v1/runs/a%2Fb?x=1", ContentType: "application/json", Body: []byte(`{"a":1}`)}
	tests := map[string]struct {
		status             int
		wantErr, wantFinal bool
	}{
		"accepted is delivered":                          {status: http.StatusOK},
		"created is delivered":                           {status: http.StatusCreated},
		"a field that is wrong stays wrong":              {status: http.StatusUnprocessableEntity, wantErr: true, wantFinal: true},
		"a body too large stays too large":               {status: http.StatusRequestEntityTooLarge, wantErr: true, wantFinal: true},
		"a catalog that fails is asked again":            {status: http.StatusInternalServerError, wantErr: true},
		"a busy catalog is asked again":                  {status: http.StatusTooManyRequests, wantErr: true},
		"a token that is not accepted may be renewed":    {status: http.StatusUnauthorized, wantErr: true},
		"rights that are missing may be granted one day": {status: http.StatusForbidden, wantErr: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			status = tt.status
			err := client.Deliver(t.Context(), entry)
			if (err != nil) != tt.wantErr || errors.Is(err, spool.ErrRefused) != tt.wantFinal {
				t.Errorf("error %v", err)
			}
			if err != nil && (!strings.Contains(err.Error(), "gpuCount") || strings.Contains(err.Error(), "secret-token")) {
				t.Errorf("the error must say what the catalog said, and not the token: %v", err)
			}
			if got.URL.RequestURI() != entry.Path || got.Method != entry.Method || body != `{"a":1}` || got.Header.Get("Authorization") != "Bearer secret-token" {
				t.Errorf("sent %s %s %s", got.Method, got.URL.RequestURI(), body)
			}
		})
	}
	t.Run("a certificate of another authority is not trusted", func(t *testing.T) {
		stranger, err := delivery.New(server.URL, token, "")
		if err != nil {
			t.Fatal(err)
		}
		if err := stranger.Deliver(t.Context(), entry); err == nil || errors.Is(err, spool.ErrRefused) {
			t.Errorf("error %v, want one that is tried again", err)
		}
	})
	t.Run("a token that is not there yet is waited for", func(t *testing.T) {
		early, err := delivery.New(server.URL, filepath.Join(t.TempDir(), "token"), ca)
		if err != nil {
			t.Fatal(err)
		}
		if err := early.Deliver(t.Context(), entry); err == nil || errors.Is(err, spool.ErrRefused) {
			t.Errorf("error %v, want one that is tried again", err)
		}
	})
}

func TestNewSaysWhatIsWrongWithTheAuthority(t *testing.T) {
	path := write(t, "ca.crt", []byte("not a certificate"))
	if _, err := delivery.New("https://catalog", "", path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v", err)
	}
}
