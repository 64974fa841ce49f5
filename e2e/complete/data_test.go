// SPDX-License-Identifier: Apache-2.0

//go:build linux

package complete_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/spotbench/spotbench/pkg/catalog"
)

func TestPostgresHasTwoReplicasThatFollow(t *testing.T) {
	const ask = "select count(*) from pg_stat_replication where state = 'streaming'"
	eventually(t, time.Minute, "two replicas stream from the primary", func() error {
		out, err := stage.Kubectl.Run(t.Context(), "-n", "data-storage", "exec", "catalog-db-0", "--", "psql", "-U", "postgres", "-tAc", ask)
		if err == nil && strings.TrimSpace(out) != "2" {
			err = fmt.Errorf("%s do", strings.TrimSpace(out))
		}
		return err
	})
}

func TestRedisHasTwoReplicasThatFollow(t *testing.T) {
	eventually(t, time.Minute, "two replicas follow the primary", func() error {
		out, err := stage.Kubectl.Run(t.Context(), "-n", "data-storage", "exec", "redis-0", "--", "sh", "-c", `REDISCLI_AUTH="$REDIS_PASSWORD" redis-cli info replication`)
		if err == nil && !strings.Contains(out, "connected_slaves:2") {
			err = fmt.Errorf("it says %s", out)
		}
		return err
	})
}

// A run that one catalog takes is in PostgreSQL, with its replicas, and every catalog
// tells it; what they read they keep in Redis.
func TestThreeCatalogsShareOneDatabaseAndOneCache(t *testing.T) {
	const key = "gpu-workloads/shared"
	if _, err := stage.Catalog.PutRun(t.Context(), key, catalog.Run{Namespace: "gpu-workloads", PodName: "shared", PodUID: "u", Model: "m", Benchmark: "b", Status: "running", StartedAt: time.Now()}); err != nil {
		t.Fatal(err)
	}
	pods := podsOf(t, "model-catalog", "app.kubernetes.io/component=catalog-api")
	if len(pods) != 3 {
		t.Errorf("%d catalogs, want 3", len(pods))
	}
	for _, pod := range pods {
		path := "/api/v1/namespaces/model-catalog/pods/http:" + pod.Name + ":8001/proxy/v1/runs?limit=50"
		eventually(t, 30*time.Second, pod.Name+" tells of the run", func() error {
			out, err := stage.Kubectl.Run(t.Context(), "get", "--raw", path)
			if err == nil && !strings.Contains(out, `"podName":"shared"`) {
				err = fmt.Errorf("it says %.300s", out)
			}
			return err
		})
	}
	const ask = "select count(*) from runs where key = '" + key + "'"
	for i := range 3 {
		database := fmt.Sprintf("catalog-db-%d", i)
		eventually(t, 30*time.Second, database+" has it", func() error {
			out, err := stage.Kubectl.Run(t.Context(), "-n", "data-storage", "exec", database, "--", "psql", "-U", "postgres", "-d", "catalog", "-tAc", ask)
			if err == nil && strings.TrimSpace(out) != "1" {
				err = fmt.Errorf("it has %s of it", strings.TrimSpace(out))
			}
			return err
		})
	}
	eventually(t, 30*time.Second, "the cache has answers", func() error {
		if _, err := stage.Catalog.GetRun(t.Context(), key); err != nil {
			return err
		}
		out, err := stage.Kubectl.Run(t.Context(), "-n", "data-storage", "exec", "redis-0", "--", "sh", "-c", `REDISCLI_AUTH="$REDIS_PASSWORD" redis-cli dbsize`)
		if err == nil && strings.TrimSpace(out) == "0" {
			err = errors.New("it has none")
		}
		return err
	})
}
