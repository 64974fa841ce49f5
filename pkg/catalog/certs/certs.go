// SPDX-License-Identifier: Apache-2.0

// Package certs makes the catalog's certificate where nothing else does, and serves
// one from files that are replaced while it runs (cert-manager, a mounted Secret).
package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

// Files that Make writes.
const (
	CAFile   = "ca.crt"
	CertFile = "tls.crt"
	KeyFile  = "tls.key"
)

const (
	validity  = 365 * 24 * time.Hour
	clockSkew = 5 * time.Minute
)

// Pair is a server's certificate with its key, and the CA that callers must trust;
// all PEM. The CA's own key is thrown away: it signs this one certificate.
type Pair struct {
	CA, Cert, Key []byte
}

// New makes a pair for the DNS names and IP addresses, valid for a year from now.
func New(hosts []string, now time.Time) (Pair, error) {
	if len(hosts) == 0 {
		return Pair{}, errors.New("a certificate needs a name; give --dns NAME or an IP address")
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, err
	}
	ca := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "spotbench catalog CA"}, NotBefore: now.Add(-clockSkew), NotAfter: now.Add(validity),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return Pair{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, err
	}
	leaf := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: hosts[0]}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else {
			leaf.DNSNames = append(leaf.DNSNames, host)
		}
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return Pair{}, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, err
	}
	encode := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	return Pair{CA: encode("CERTIFICATE", caDER), Cert: encode("CERTIFICATE", leafDER), Key: encode("PRIVATE KEY", keyDER)}, nil
}

func serial() *big.Int {
	bytes := make([]byte, 16)
	rand.Read(bytes)
	return new(big.Int).SetBytes(bytes)
}

// Ensure makes a pair in dir unless a certificate is there that is still good for a
// day and for all hosts. It is true if it made one.
func Ensure(dir string, hosts []string, now time.Time) (bool, error) {
	data, err := os.ReadFile(filepath.Join(dir, CertFile))
	switch {
	case err == nil && good(data, hosts, now):
		return false, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return false, fmt.Errorf("certificate: %w", err)
	}
	pair, err := New(hosts, now)
	if err != nil {
		return false, err
	}
	return true, pair.Write(dir)
}

func good(certPEM []byte, hosts []string, now time.Time) bool {
	block, _ := pem.Decode(certPEM)
	if block == nil {
		return false
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil || now.Before(cert.NotBefore) || now.Add(24*time.Hour).After(cert.NotAfter) {
		return false
	}
	for _, host := range hosts {
		if cert.VerifyHostname(host) != nil {
			return false
		}
	}
	return true
}

// Write puts the pair into dir, which is made if need be; the key is for the owner
// alone.
func (p Pair) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	for _, f := range []struct {
		name string
		data []byte
		mode fs.FileMode
	}{{KeyFile, p.Key, 0o600}, {CertFile, p.Cert, 0o644}, {CAFile, p.CA, 0o644}} {
		path := filepath.Join(dir, f.name)
		if err := os.WriteFile(path+".new", f.data, f.mode); err != nil {
			return fmt.Errorf("certificate: %w", err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			return fmt.Errorf("certificate: %w", err)
		}
	}
	return nil
}

// Reloader serves a certificate from two files.
type Reloader struct {
	certFile, keyFile string
	current           atomic.Pointer[tls.Certificate]
}

// Load reads the files.
func Load(certFile, keyFile string) (*Reloader, error) {
	r := &Reloader{certFile: certFile, keyFile: keyFile}
	return r, r.reload()
}

func (r *Reloader) reload() error {
	pair, err := tls.LoadX509KeyPair(r.certFile, r.keyFile)
	if err != nil {
		return fmt.Errorf("certificate %s with key %s: %w", r.certFile, r.keyFile, err)
	}
	r.current.Store(&pair)
	return nil
}

// Config is a server's TLS configuration that always has the newest certificate.
func (r *Reloader) Config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return r.current.Load(), nil
	}}
}

// Watch looks at the files every interval and takes over what has changed, until ctx
// ends. A pair that does not fit together (half replaced, say) is left for the next
// look and the one in use stays. Looking, rather than being told of changes, also
// works on a mounted Secret, whose files are links that are swapped.
func (r *Reloader) Watch(ctx context.Context, interval time.Duration, log *slog.Logger) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	seen := r.stamp()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := r.stamp()
		if now == seen {
			continue
		}
		if err := r.reload(); err != nil {
			log.Warn("the new certificate cannot be used; the old one stays", "error", err)
			continue
		}
		seen = now
		log.Info("the certificate was replaced", "file", r.certFile)
	}
}

func (r *Reloader) stamp() string {
	var stamp strings.Builder
	for _, path := range []string{r.certFile, r.keyFile} {
		if info, err := os.Stat(path); err == nil {
			fmt.Fprint(&stamp, info.ModTime().UnixNano(), info.Size(), " ")
		}
	}
	return stamp.String()
}
