// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/rest"

	"github.com/spotbench/spotbench/pkg/catalog/client"
)

// catalogFlags say where the catalog is.
type catalogFlags struct {
	url     string
	ca      string
	service string
}

func (f *catalogFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.url, "catalog", "", "address of the catalog, for example http://127.0.0.1:8001 (default: its Service, through the API server); a catalog whose reads need a token is shown the one in env CATALOG_TOKEN")
	flags.StringVar(&f.ca, "catalog-ca", os.Getenv("CATALOG_CA"), "CA that signed the certificate of the catalog at --catalog, PEM (env CATALOG_CA; without it, the system's)")
	flags.StringVar(&f.service, "catalog-service", "model-catalog/https:api-service:8000", "the catalog's Service as NAMESPACE/SCHEME:NAME:PORT")
}

// connect makes a client that only reads. Through the API server it needs the right
// to get services/proxy in the catalog's namespace.
func (f *catalogFlags) connect(config *genericclioptions.ConfigFlags) (*client.Client, error) {
	if f.url != "" {
		httpClient, err := client.Trusting(f.ca, time.Minute)
		if err != nil {
			return nil, fmt.Errorf("--catalog-ca: %w", err)
		}
		c, err := client.New(f.url, httpClient, func(context.Context) (string, error) { return os.Getenv("CATALOG_TOKEN"), nil })
		if err != nil {
			return nil, fmt.Errorf("--catalog: %w", err)
		}
		return c, nil
	}
	namespace, service, ok := strings.Cut(f.service, "/")
	if !ok || strings.Count(service, ":") != 2 {
		return nil, fmt.Errorf("--catalog-service %q is not NAMESPACE/SCHEME:NAME:PORT; write for example model-catalog/https:api-service:8000", f.service)
	}
	restConfig, err := config.ToRESTConfig()
	if err != nil {
		return nil, fmt.Errorf("which cluster: %w; give --kubeconfig, or the catalog's address with --catalog", err)
	}
	transport, err := rest.TransportFor(restConfig)
	if err != nil {
		return nil, fmt.Errorf("credentials for the API server: %w", err)
	}
	base := strings.TrimSuffix(restConfig.Host, "/")
	if !strings.Contains(base, "://") {
		base = "https://" + base
	}
	return client.New(base+"/api/v1/namespaces/"+namespace+"/services/"+service+"/proxy", &http.Client{Transport: transport, Timeout: time.Minute}, nil)
}
