// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/spotbench/spotbench/pkg/images"
	"github.com/spotbench/spotbench/pkg/localcluster/toolchain"
)

// overlay is the kustomization that is installed.
func (s *Stage) overlay() string {
	if s.opts.Complete {
		return "manifests/overlays/local"
	}
	return "manifests/overlays/demo"
}

// installed are the namespaces whose pods must be ready.
func (s *Stage) installed() []string {
	namespaces := []string{"data-storage", "model-catalog", "spotbench-system"}
	if s.opts.Complete {
		namespaces = append(namespaces, "monitoring", "kube-system")
	}
	return namespaces
}

// completePrograms are built from modules and run in pods of the whole platform only.
var completePrograms = []string{toolchain.MetricsServer, toolchain.Prometheus}

// completeTools are the programs that only the whole platform needs.
func (s *Stage) completeTools() []string {
	if s.opts.Complete {
		return completePrograms
	}
	return nil
}

// buildComplete makes the images of others' programs that only the whole platform has,
// of Debian's packages and of what was built.
func (s *Stage) buildComplete(ctx context.Context, tools *toolchain.Set, out string) ([]string, error) {
	if !s.opts.Complete {
		return nil, nil
	}
	tars, err := images.BuildServices(ctx, out, s.progress.Writer(), images.Services()...)
	if err != nil {
		return nil, err
	}
	for _, name := range completePrograms {
		tar := filepath.Join(out, name+".tar")
		if err := images.Static(images.Ref(name), tools.Path(name), tar); err != nil {
			return nil, err
		}
		tars = append(tars, tar)
	}
	return tars, nil
}

// installCompleteSecrets creates what the databases, the catalogs and Alertmanager refer
// to. Alerts go nowhere until somebody puts real addresses there.
func (s *Stage) installCompleteSecrets(ctx context.Context) error {
	if !s.opts.Complete {
		return nil
	}
	if err := EnsureNamespace(ctx, s.Client, "monitoring"); err != nil {
		return fmt.Errorf("namespace monitoring: %w", err)
	}
	owner, redis := randomKey(), randomKey()
	for _, secret := range []struct {
		namespace, name string
		data            map[string]string
	}{
		{"data-storage", "catalog-db-admin", map[string]string{"password": randomKey(), "replication": randomKey()}},
		{"data-storage", "catalog-db-owner", map[string]string{"username": "catalog", "password": owner}},
		{"data-storage", "redis-auth", map[string]string{"password": redis}},
		{"model-catalog", "catalog-secrets", map[string]string{"DB_PASSWORD": owner, "REDIS_PASSWORD": redis, "SECRET_KEY": randomKey(), "API_KEYS": ""}},
		{"monitoring", "alerting", map[string]string{"slack-url": "http://slack.invalid/", "pagerduty-key": randomKey()}},
	} {
		data := map[string][]byte{}
		for key, value := range secret.data {
			data[key] = []byte(value)
		}
		if err := EnsureSecret(ctx, s.Client, secret.namespace, secret.name, corev1.SecretTypeOpaque, data); err != nil {
			return fmt.Errorf("secret %s/%s: %w", secret.namespace, secret.name, err)
		}
	}
	return nil
}

// patience is how long the pods may take: PostgreSQL's replicas start one after the other,
// each with a copy of the database.
func (s *Stage) patience() time.Duration {
	if s.opts.Complete {
		return 2 * rolloutTimeout
	}
	return rolloutTimeout
}
