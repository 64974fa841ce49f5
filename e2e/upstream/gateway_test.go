// SPDX-License-Identifier: Apache-2.0

//go:build linux

package upstream_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/spotbench/spotbench/pkg/catalog/certs"
	"github.com/spotbench/spotbench/pkg/demo"
	"github.com/spotbench/spotbench/pkg/images"
	"github.com/spotbench/spotbench/pkg/localcluster/toolchain"
)

const (
	catalogHost    = "catalog.example.com"
	gatewayPort    = "443"
	inside         = "api-service.model-catalog.svc"
	gatewayAPI     = "gateway.networking.k8s.io/v1"
	traefikGateway = "traefik.io/gateway-controller"
)

// installCatalog runs the catalog on the real node as its manifests say, with a
// certificate for its name inside the cluster, whose authority is returned.
func installCatalog(t *testing.T) []byte {
	t.Helper()
	tars, err := images.Build(t.Context(), images.Options{Source: "../..", Out: filepath.Join(cache, "demo-images"), Only: []string{"catalog-api"}, Progress: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	if err := cluster.LoadImages(t.Context(), tars...); err != nil {
		t.Fatal(err)
	}
	authority := secretWithCertificate(t, "model-catalog", "api-service-tls", inside)
	trust(t, authority)
	for _, o := range ofKind(t, "base/catalog", "ConfigMap", "Deployment", "Service") {
		if err := apply(t.Context(), &o.Unstructured); err != nil {
			t.Fatal(err)
		}
	}
	if err := demo.WaitRolledOut(t.Context(), cluster.Client(), 2*time.Minute, "model-catalog"); err != nil {
		t.Fatal(err)
	}
	return authority
}

// secretWithCertificate for a host; what signed it is returned.
func secretWithCertificate(t *testing.T, namespace, name, host string) []byte {
	t.Helper()
	pair, err := certs.New([]string{host}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := demo.EnsureSecret(t.Context(), cluster.Client(), namespace, name, corev1.SecretTypeTLS, map[string][]byte{corev1.TLSCertKey: pair.Cert, corev1.TLSPrivateKeyKey: pair.Key}); err != nil {
		t.Fatal(err)
	}
	return pair.CA
}

// trust is what the gateway holds the catalog's certificate to.
func trust(t *testing.T, authority []byte) {
	t.Helper()
	if err := demo.EnsureConfigMap(t.Context(), cluster.Client(), "model-catalog", "spotbench-ca", map[string]string{"ca.crt": string(authority)}); err != nil {
		t.Fatal(err)
	}
}

// startTraefik as the gateway, on the host's address in the cluster's network.
func startTraefik(t *testing.T, address string) {
	t.Helper()
	binary := program(t, toolchain.Traefik)
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "traefik", Namespace: "gateway"}}
	// What it may do is for its own chart to say.
	binding := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "traefik"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "traefik", Namespace: "gateway"}}}
	for _, o := range []client.Object{account, binding} {
		if err := admin.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	config, token, authority := cluster.RESTConfig(), filepath.Join(t.TempDir(), "token"), filepath.Join(t.TempDir(), "ca.crt")
	if err := errors.Join(os.WriteFile(token, []byte(tokenOf(t, "gateway", "traefik")), 0o600), os.WriteFile(authority, config.CAData, 0o600)); err != nil {
		t.Fatal(err)
	}
	daemon(t, "", nil, binary, "--entrypoints.https.address="+net.JoinHostPort(address, gatewayPort), "--providers.kubernetesgateway", "--providers.kubernetesgateway.endpoint="+config.Host,
		"--providers.kubernetesgateway.token="+token, "--providers.kubernetesgateway.certauthfilepath="+authority, "--providers.kubernetesgateway.statusaddress.ip="+address,
		"--log.level=INFO", "--global.checknewversion=false", "--global.sendanonymoususage=false")
}

// said is whether the object has a condition, anywhere in its status, and why not.
func said(ctx context.Context, apiVersion, kind, namespace, name, condition string) error {
	o := object(apiVersion, kind)
	if err := admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, o); err != nil {
		return err
	}
	conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, list := range []string{"parents", "ancestors"} {
		of, _, _ := unstructured.NestedSlice(o.Object, "status", list)
		for _, one := range of {
			more, _, _ := unstructured.NestedSlice(one.(map[string]any), "conditions")
			conditions = append(conditions, more...)
		}
	}
	for _, c := range conditions {
		if c := c.(map[string]any); c["type"] == condition && c["status"] == "True" {
			return nil
		}
	}
	return fmt.Errorf("%s %s is not %s: %v", kind, name, condition, o.Object["status"])
}

// TestTheGatewayLeadsToTheCatalogInTLSBothWays with another implementation of the Gateway
// API than the one we name: the routes are the same, the GatewayClass names its controller.
func TestTheGatewayLeadsToTheCatalogInTLSBothWays(t *testing.T) {
	address := cluster.HostIP().String()
	startTraefik(t, address)
	authority := installCatalog(t)
	outside := secretWithCertificate(t, "gateway", "catalog-tls", catalogHost)
	for _, o := range ofKind(t, "overlays/aws", "GatewayClass", "Gateway", "HTTPRoute", "BackendTLSPolicy") {
		if o.GetKind() == "GatewayClass" {
			if err := unstructured.SetNestedField(o.Object, traefikGateway, "spec", "controllerName"); err != nil {
				t.Fatal(err)
			}
		}
		if err := apply(t.Context(), &o.Unstructured); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []struct{ kind, namespace, name, condition string }{
		{"GatewayClass", "", "spotbench", "Accepted"}, {"Gateway", "gateway", "catalog", "Programmed"}, {"HTTPRoute", "model-catalog", "catalog", "Accepted"},
		{"HTTPRoute", "model-catalog", "catalog", "ResolvedRefs"}, {"BackendTLSPolicy", "model-catalog", "catalog", "Accepted"},
	} {
		eventually(t, 30*time.Second, want.kind+" "+want.condition, func(ctx context.Context) error {
			return said(ctx, gatewayAPI, want.kind, want.namespace, want.name, want.condition)
		})
	}

	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(outside)
	browser := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		// As a name server would say.
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(address, gatewayPort))
		}}}
	get := func(ctx context.Context, host, path string) (int, string, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+catalogHost+path, nil)
		if err != nil {
			return 0, "", err
		}
		request.Host = host
		answer, err := browser.Do(request)
		if err != nil {
			return 0, "", err
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		return answer.StatusCode, string(body), err
	}
	answers := func(host, path string, status int) func(context.Context) error {
		return func(ctx context.Context) error {
			got, body, err := get(ctx, host, path)
			if err != nil || got != status {
				return fmt.Errorf("%d, %w: %.200s", got, err, body)
			}
			return nil
		}
	}
	eventually(t, 30*time.Second, "the catalog answers through the gateway", answers(catalogHost, "/v1/runs", http.StatusOK))
	eventually(t, 10*time.Second, "another host is not led to it", answers("other.example.com", "/v1/runs", http.StatusNotFound))

	other, err := certs.New([]string{inside}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	trust(t, other.CA)
	eventually(t, 30*time.Second, "a catalog whose certificate is not by whom we trust is not asked", answers(catalogHost, "/v1/runs", http.StatusInternalServerError))
	trust(t, authority)
	eventually(t, 30*time.Second, "it is asked again", answers(catalogHost, "/v1/runs", http.StatusOK))
}
