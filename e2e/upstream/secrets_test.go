// SPDX-License-Identifier: Apache-2.0

//go:build linux

package upstream_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/spotbench/spotbench/pkg/localcluster/toolchain"
)

// fill the store that our ExternalSecrets name, with the operator's own kind of store
// instead of a cloud's. The clouds differ in what the names of secrets may have between
// their parts.
func fill(t *testing.T, between string, secrets map[string]string) {
	t.Helper()
	var data []any
	for name, value := range secrets {
		data = append(data, map[string]any{"key": strings.ReplaceAll(name, "/", between), "value": value})
	}
	store := object("external-secrets.io/v1", "ClusterSecretStore")
	store.SetName("platform")
	if err := unstructured.SetNestedSlice(store.Object, data, "spec", "provider", "fake", "data"); err != nil {
		t.Fatal(err)
	}
	if err := apply(t.Context(), store); err != nil {
		t.Fatal(err)
	}
}

// wantSecret waits for a Secret with exactly these values.
func wantSecret(t *testing.T, namespace, name string, want map[string]string) {
	t.Helper()
	eventually(t, 30*time.Second, "Secret "+namespace+"/"+name, func(ctx context.Context) error {
		var secret corev1.Secret
		if err := admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &secret); err != nil {
			return err
		}
		got := map[string]string{}
		for key, value := range secret.Data {
			got[key] = string(value)
		}
		if !maps.Equal(got, want) {
			return fmt.Errorf("it has %v, want %v", got, want)
		}
		return nil
	})
}

func TestSecretsOfThePlatformComeFromTheStoreAndFollowIt(t *testing.T) {
	binary := program(t, toolchain.ExternalSecrets)
	daemon(t, "", []string{"KUBECONFIG=" + cluster.Kubeconfig()}, binary, "--metrics-addr=127.0.0.1:"+freePort(t), "--enable-push-secret-reconciler=false",
		"--enable-cluster-push-secret-reconciler=false", "--enable-cluster-external-secret-reconciler=false")
	for overlay, between := range map[string]string{"overlays/aws": "/", "overlays/azure": "-", "overlays/gcp": "-"} {
		t.Run(overlay, func(t *testing.T) {
			values := map[string]string{
				"spotbench/catalog":  `{"db-password": "first", "api-keys": "a line\nand another"}`,
				"spotbench/redis":    `{"password": "red"}`,
				"spotbench/alerting": `{"slack-url": "https://example.com/hook", "pagerduty-key": "page"}`,
			}
			fill(t, between, values)
			secrets := ofKind(t, overlay, "ExternalSecret")
			for i := range secrets {
				o := &secrets[i].Unstructured
				if err := unstructured.SetNestedField(o.Object, "1s", "spec", "refreshInterval"); err != nil { // an hour, elsewhere
					t.Fatal(err)
				}
				if err := apply(t.Context(), o); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := client.IgnoreNotFound(admin.Delete(context.Background(), o)); err != nil {
						t.Error(err)
					}
				})
			}
			wantSecret(t, "model-catalog", "catalog-secrets", map[string]string{"DB_PASSWORD": "first", "REDIS_PASSWORD": "red", "API_KEYS": "a line\nand another"})
			wantSecret(t, "data-storage", "catalog-db-owner", map[string]string{"username": "catalog", "password": "first"})
			wantSecret(t, "data-storage", "redis-auth", map[string]string{"password": "red"})
			wantSecret(t, "monitoring", "alerting", map[string]string{"slack-url": "https://example.com/hook", "pagerduty-key": "page"})

			values["spotbench/catalog"] = `{"db-password": "second", "api-keys": ""}`
			fill(t, between, values)
			wantSecret(t, "model-catalog", "catalog-secrets", map[string]string{"DB_PASSWORD": "second", "REDIS_PASSWORD": "red", "API_KEYS": ""})
			wantSecret(t, "data-storage", "catalog-db-owner", map[string]string{"username": "catalog", "password": "second"})
		})
	}
}
