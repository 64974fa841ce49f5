// SPDX-License-Identifier: Apache-2.0

package pki_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/spotbench/spotbench/pkg/localcluster/pki"
)

func issue(t *testing.T, ca *pki.Authority, r pki.Request) (*x509.Certificate, pki.Pair) {
	t.Helper()
	pair, err := ca.Issue(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tls.X509KeyPair(pair.Cert, pair.Key); err != nil {
		t.Fatalf("certificate and key do not belong together: %v", err)
	}
	block, _ := pem.Decode(pair.Cert)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert, pair
}

func TestCertificatesAreGoodForWhatTheyWereAskedForOnly(t *testing.T) {
	ca, err := pki.NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca.CertPEM) {
		t.Fatal("the authority's certificate is none")
	}
	server, _ := issue(t, ca, pki.Request{CommonName: "kube-apiserver", Hosts: []string{"10.200.0.1", "kubernetes.default.svc"}})
	for _, host := range []string{"10.200.0.1", "kubernetes.default.svc"} {
		if _, err := server.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
			t.Errorf("as server %s: %v", host, err)
		}
	}
	if _, err := server.Verify(x509.VerifyOptions{Roots: roots, DNSName: "10.201.0.1"}); err == nil {
		t.Error("the certificate is good for another cluster's address")
	}
	client, _ := issue(t, ca, pki.Request{CommonName: "system:node:a", Groups: []string{"system:nodes"}})
	if client.Subject.CommonName != "system:node:a" || !slices.Equal(client.Subject.Organization, []string{"system:nodes"}) {
		t.Errorf("user %v, want system:node:a in system:nodes", client.Subject)
	}
	if _, err := client.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err == nil {
		t.Error("a client's certificate is good for a server")
	}
	other, err := pki.NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	stranger, _ := issue(t, other, pki.Request{CommonName: "admin", Groups: []string{"system:masters"}})
	if _, err := stranger.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err == nil {
		t.Error("a certificate of another cluster's authority is accepted")
	}
}

func TestAnAuthorityReadBackSignsAsBefore(t *testing.T) {
	ca, err := pki.NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	key, err := ca.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	again, err := pki.LoadAuthority(ca.CertPEM, key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.CertPEM)
	cert, _ := issue(t, again, pki.Request{CommonName: "x"})
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
	if _, err := pki.LoadAuthority([]byte("no"), key); err == nil {
		t.Error("text is accepted as a certificate")
	}
}

func TestKeysAreForTheirOwnerOnlyAndKubeconfigsAreComplete(t *testing.T) {
	ca, err := pki.NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	_, pair := issue(t, ca, pki.Request{CommonName: "admin"})
	dir := t.TempDir()
	if err := pair.Write(dir, "admin"); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, "admin.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key has mode %v, %v, want 600", info.Mode(), err)
	}
	data, err := pki.Kubeconfig("c", "https://10.200.0.1:6443", "admin", ca.CertPEM, pair)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := clientcmd.RESTConfigFromKubeConfig(data)
	if err != nil || cfg.Host != "https://10.200.0.1:6443" || string(cfg.CertData) != string(pair.Cert) || string(cfg.CAData) != string(ca.CertPEM) {
		t.Errorf("kubeconfig leads to %+v, %v", cfg, err)
	}
}
