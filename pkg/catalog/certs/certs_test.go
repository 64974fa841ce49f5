// SPDX-License-Identifier: Apache-2.0

package certs_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spotbench/spotbench/pkg/catalog/certs"
)

func TestAMadeCertificateIsTrustedForItsNamesAndNoOthers(t *testing.T) {
	dir := t.TempDir()
	made, err := certs.Ensure(dir, []string{"api-service.model-catalog.svc", "127.0.0.1"}, time.Now())
	if err != nil || !made {
		t.Fatalf("made %v, error %v; want a new pair", made, err)
	}
	loaded, err := certs.Load(filepath.Join(dir, certs.CertFile), filepath.Join(dir, certs.KeyFile))
	if err != nil {
		t.Fatal(err)
	}
	// Not httptest's StartTLS: it serves a certificate of its own to callers without a name.
	listener, err := tls.Listen("tcp", "127.0.0.1:0", loaded.Config())
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	go server.Serve(listener) //nolint:errcheck // it ends with the test
	defer server.Close()
	ca, err := os.ReadFile(filepath.Join(dir, certs.CAFile))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		t.Fatal("the CA is no PEM certificate")
	}
	for name, trusted := range map[string]bool{"api-service.model-catalog.svc": true, "127.0.0.1": true, "example.org": false} {
		conn, err := tls.Dial("tcp", listener.Addr().String(), &tls.Config{RootCAs: roots, ServerName: name, MinVersion: tls.VersionTLS12})
		if (err == nil) != trusted {
			t.Errorf("%s: error %v, want trusted %v", name, err, trusted)
		}
		if conn != nil {
			conn.Close()
		}
	}
	if info, err := os.Stat(filepath.Join(dir, certs.KeyFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the key %v, error %v; want 0600", info.Mode(), err)
	}
}

func TestACertificateIsMadeAgainOnlyWhenItIsNotGoodAnyMore(t *testing.T) {
	now := time.Now()
	tests := map[string]struct {
		hosts []string
		at    time.Time
		want  bool
	}{
		"the same names an hour later":        {[]string{"a.example"}, now.Add(time.Hour), false},
		"another name":                        {[]string{"b.example"}, now, true},
		"in the last day of its year":         {[]string{"a.example"}, now.Add(365*24*time.Hour - time.Hour), true},
		"two days before the end of the year": {[]string{"a.example"}, now.Add(363 * 24 * time.Hour), false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := certs.Ensure(dir, []string{"a.example"}, now); err != nil {
				t.Fatal(err)
			}
			if made, err := certs.Ensure(dir, tt.hosts, tt.at); err != nil || made != tt.want {
				t.Errorf("made %v, error %v; want %v", made, err, tt.want)
			}
		})
	}
	if _, err := certs.New(nil, now); err == nil || !strings.Contains(err.Error(), "--dns") {
		t.Errorf("error %v for no name, want one that says what to give", err)
	}
}

func TestAReplacedCertificateIsServedAndABrokenOneIsNot(t *testing.T) {
	dir := t.TempDir()
	if _, err := certs.Ensure(dir, []string{"first.example"}, time.Now()); err != nil {
		t.Fatal(err)
	}
	loaded, err := certs.Load(filepath.Join(dir, certs.CertFile), filepath.Join(dir, certs.KeyFile))
	if err != nil {
		t.Fatal(err)
	}
	go loaded.Watch(t.Context(), 5*time.Millisecond, slog.New(slog.DiscardHandler))
	served := func() []byte {
		t.Helper()
		pair, err := loaded.Config().GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		return pair.Certificate[0]
	}
	first := served()
	if err := os.WriteFile(filepath.Join(dir, certs.CertFile), []byte("half written"), 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond) // ten looks
	if !bytes.Equal(served(), first) {
		t.Fatal("a broken certificate took the place of the good one")
	}
	pair, err := certs.New([]string{"second.example"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := pair.Write(dir); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); bytes.Equal(served(), first); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the new certificate was not served within 10 s")
		}
	}
}
