// SPDX-License-Identifier: Apache-2.0

//go:build linux

package complete_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// scaled is the platform with the autoscalers of manifests/components/autoscaling. Of the
// catalog's only the times and the largest number differ from what a real cluster gets:
// this machine is small, and a test does not wait five minutes for every pod less.
const scaled = `apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [ROOT/manifests/overlays/local]
components: [ROOT/manifests/components/autoscaling]
patches:
  - target: {kind: HorizontalPodAutoscaler, name: prometheus}
    patch: |-
      {apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: prometheus, namespace: monitoring}, $patch: delete}
  - target: {kind: HorizontalPodAutoscaler, name: redis}
    patch: |-
      {apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: redis, namespace: data-storage}, $patch: delete}
  - target: {kind: HorizontalPodAutoscaler, name: catalog-api}
    patch: |-
      - {op: replace, path: /spec/maxReplicas, value: 6}
      - op: add
        path: /spec/behavior
        value:
          scaleDown: {stabilizationWindowSeconds: 15, policies: [{type: Percent, value: 100, periodSeconds: 15}]}
`

func TestTheCatalogGrowsWithItsLoadAndShrinksAfterIt(t *testing.T) {
	eventually(t, 2*time.Minute, "the metrics server knows what the catalog's pods use", func() error {
		_, err := stage.Kubectl.Run(t.Context(), "-n", "model-catalog", "top", "pods", "--no-headers")
		return err
	})
	t.Logf("at rest:\n%s", kubectl(t, "-n", "model-catalog", "top", "pods"))
	overlay(t, scaled, nil)
	t.Cleanup(func() {
		for _, args := range [][]string{{"delete", "hpa", "catalog-api"}, {"scale", "deployment", "catalog-api", "--replicas", "3"}} {
			if _, err := stage.Kubectl.Run(cleanupContext(t), append([]string{"-n", "model-catalog"}, args...)...); err != nil {
				t.Error(err)
			}
		}
	})
	eventually(t, 2*time.Minute, "the autoscaler reads the metrics and leaves three pods alone", func() error {
		hpa := autoscaler(t)
		if hpa.Status.CurrentReplicas != 3 || len(hpa.Status.CurrentMetrics) < 2 || hpa.Status.DesiredReplicas != 3 {
			return fmt.Errorf("%s", describe(hpa))
		}
		return nil
	})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	answered := load(ctx)
	eventually(t, 3*time.Minute, "under load there are more than three pods, and they are ready", func() error {
		d, err := stage.Client.AppsV1().Deployments("model-catalog").Get(t.Context(), "catalog-api", metav1.GetOptions{})
		if err == nil && (d.Status.ReadyReplicas <= 3 || autoscaler(t).Status.DesiredReplicas <= 3) {
			err = fmt.Errorf("%d ready; %s", d.Status.ReadyReplicas, describe(autoscaler(t)))
		}
		return err
	})
	t.Logf("under load: %s", describe(autoscaler(t)))
	stop()
	t.Logf("%d requests were answered", answered())
	eventually(t, 5*time.Minute, "after it there are three again", func() error {
		d, err := stage.Client.AppsV1().Deployments("model-catalog").Get(t.Context(), "catalog-api", metav1.GetOptions{})
		if err == nil && (d.Status.Replicas != 3 || autoscaler(t).Status.DesiredReplicas != 3) {
			err = fmt.Errorf("%d; %s", d.Status.Replicas, describe(autoscaler(t)))
		}
		return err
	})
}

func autoscaler(t *testing.T) *autoscalingv2.HorizontalPodAutoscaler {
	t.Helper()
	hpa, err := stage.Client.AutoscalingV2().HorizontalPodAutoscalers("model-catalog").Get(t.Context(), "catalog-api", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return hpa
}

func describe(hpa *autoscalingv2.HorizontalPodAutoscaler) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%d pods, %d wanted", hpa.Status.CurrentReplicas, hpa.Status.DesiredReplicas)
	for _, m := range hpa.Status.CurrentMetrics {
		if m.Resource != nil && m.Resource.Current.AverageUtilization != nil {
			fmt.Fprintf(&text, ", %s %d %%", m.Resource.Name, *m.Resource.Current.AverageUtilization)
		}
	}
	return text.String()
}

// load asks the catalogs from outside the cluster until ctx ends. answered waits for the
// last answers and counts them all.
func load(ctx context.Context) (answered func() int64) {
	var count atomic.Int64
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			// A connection for each request, so that every pod gets its part.
			client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
			for ctx.Err() == nil {
				// No two are the same, so that the cache does not answer for the catalog.
				url := fmt.Sprintf("%s/v1/runs?limit=%d", stage.CatalogURL, 1+count.Load()%100)
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
				if err != nil {
					return
				}
				resp, err := client.Do(req)
				if err != nil {
					continue // counted by its absence
				}
				if _, err := io.Copy(io.Discard, resp.Body); err == nil && resp.StatusCode == http.StatusOK {
					count.Add(1)
				}
				_ = resp.Body.Close()
			}
		})
	}
	return func() int64 { wait.Wait(); return count.Load() }
}
