// SPDX-License-Identifier: Apache-2.0

package client

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"time"

	certutil "k8s.io/client-go/util/cert"
)

// Trusting is an HTTP client that trusts the certificate authority in a file of PEM,
// or with caFile "" the system's. Each of its calls ends within the timeout.
func Trusting(caFile string, timeout time.Duration) (*http.Client, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // the standard library's own
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile != "" {
		pool, err := certutil.NewPool(caFile)
		if err != nil {
			return nil, fmt.Errorf("authority of the catalog's certificate, %s: %w; give the catalog's ca.crt", caFile, err)
		}
		transport.TLSClientConfig.RootCAs = pool
	}
	return &http.Client{Timeout: timeout, Transport: transport}, nil
}
