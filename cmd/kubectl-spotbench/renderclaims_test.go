// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const claimDocuments = `apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: one-gpu}
spec:
  spec:
    devices:
      requests:
      - name: gpu
        exactly: {deviceClassName: gpu.nvidia.com}
---
kind: Job
metadata: {name: bench}
spec:
  template:
    metadata: {annotations: {spotbench.dev/gpu-model: L4}}
    spec:
      resourceClaims: [{name: gpu, resourceClaimTemplateName: one-gpu}]
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: other}
spec: {spec: {devices: {requests: [{name: gpu, exactly: {deviceClassName: gpu.nvidia.com}}]}}}
`

func TestRenderSelectsTheModelsInTheClaimsOfAPod(t *testing.T) {
	var out, again bytes.Buffer
	if err := render(strings.NewReader(claimDocuments), &out); err != nil {
		t.Fatal(err)
	}
	want := `apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata:
  name: one-gpu
spec:
  spec:
    devices:
      requests:
      - exactly:
          deviceClassName: gpu.nvidia.com
          selectors:
          - cel:
              expression: device.driver != "gpu.nvidia.com" || device.attributes["gpu.nvidia.com"].productName.lowerAscii().replace("
                ", "-") in ["l4-24gb", "nvidia-l4-24gb", "l4", "nvidia-l4"]
        name: gpu
---
kind: Job
metadata:
  name: bench
spec:
  template:
    metadata:
      annotations:
        spotbench.dev/gpu-model: L4
    spec:
      resourceClaims:
      - name: gpu
        resourceClaimTemplateName: one-gpu
      schedulerName: spotbench
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata:
  name: other
spec:
  spec:
    devices:
      requests:
      - exactly:
          deviceClassName: gpu.nvidia.com
        name: gpu
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("rendered (-want +got):\n%s", diff)
	}
	if err := render(bytes.NewReader(out.Bytes()), &again); err != nil || again.String() != out.String() {
		t.Errorf("rendered again: %v\n%s", err, cmp.Diff(out.String(), again.String()))
	}
}

func TestRenderRefusesOneClaimForDifferentModels(t *testing.T) {
	const pods = `kind: Pod
metadata: {name: a, annotations: {spotbench.dev/gpu-model: L4}}
spec: {resourceClaims: [{name: gpu, resourceClaimName: shared}]}
---
kind: Pod
metadata: {name: b, annotations: {spotbench.dev/gpu-model: H100-80GB}}
spec: {resourceClaims: [{name: gpu, resourceClaimName: shared}]}
`
	var out bytes.Buffer
	err := render(strings.NewReader(pods), &out)
	if want := "document 2: Pod b: ResourceClaim shared is of several pods that want different models, L4-24GB and H100-80GB; give each its own"; err == nil || err.Error() != want || out.Len() > 0 {
		t.Errorf("error %v, want %s", err, want)
	}
	empty := strings.Replace(claimDocuments, "requests:\n      - name: gpu\n        exactly: {deviceClassName: gpu.nvidia.com}", "requests: []", 1)
	if err := render(strings.NewReader(empty), &out); err == nil || !strings.Contains(err.Error(), "ResourceClaimTemplate one-gpu: spec.devices.requests is empty") {
		t.Errorf("error %v", err)
	}
}
