// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const twoDocuments = `kind: Job
metadata: {name: bench}
spec:
  template:
    metadata: {annotations: {spotbench.dev/gpu-model: NVIDIA-Future-1}}
    spec:
      affinity:
        nodeAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            nodeSelectorTerms:
            - matchExpressions: [{key: zone, operator: In, values: [a]}]
---
kind: ConfigMap
metadata: {name: other}
`

func TestRenderKeepsWhatAPodAsksForAndAddsTheModel(t *testing.T) {
	var out bytes.Buffer
	if err := render(strings.NewReader(twoDocuments), &out); err != nil {
		t.Fatal(err)
	}
	want := `kind: Job
metadata:
  name: bench
spec:
  template:
    metadata:
      annotations:
        spotbench.dev/gpu-model: NVIDIA-Future-1
    spec:
      affinity:
        nodeAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            nodeSelectorTerms:
            - matchExpressions:
              - key: zone
                operator: In
                values:
                - a
              - key: nvidia.com/gpu.product
                operator: In
                values:
                - NVIDIA-Future-1
                - NVIDIA-Future-1-SHARED
      schedulerName: spotbench
---
kind: ConfigMap
metadata:
  name: other
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("rendered (-want +got):\n%s", diff)
	}
}

func TestRenderingAgainChangesNothing(t *testing.T) {
	for _, model := range []string{"NVIDIA-Future-1", "H100-80GB, A100-80GB", "L4-24GB"} {
		var once, twice bytes.Buffer
		if err := render(strings.NewReader(strings.Replace(twoDocuments, "NVIDIA-Future-1", `"`+model+`"`, 1)), &once); err != nil {
			t.Fatal(err)
		}
		if err := render(bytes.NewReader(once.Bytes()), &twice); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(once.String(), twice.String()); diff != "" {
			t.Errorf("%s (-once +twice):\n%s", model, diff)
		}
	}
}

func TestRenderRefusesWithTheFieldAndWritesNothing(t *testing.T) {
	for name, test := range map[string]struct{ doc, part string }{
		"an annotation that is a number": {`{kind: Pod, metadata: {name: p, annotations: {spotbench.dev/max-interruption-risk: 0.1}}, spec: {}}`, "put it in quotes"},
		"another scheduler":              {`{kind: Pod, metadata: {name: p, annotations: {spotbench.dev/capacity: spot}}, spec: {schedulerName: volcano}}`, `"volcano"`},
		"a capacity that is none":        {`{kind: Pod, metadata: {name: p, annotations: {spotbench.dev/capacity: spto}}, spec: {}}`, "spotbench.dev/capacity"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			err := render(strings.NewReader("kind: ConfigMap\n---\n"+test.doc), &out)
			if err == nil || !strings.Contains(err.Error(), test.part) || !strings.Contains(err.Error(), "Pod p") || out.Len() > 0 {
				t.Errorf("error %v, output %q, want an error with %q and no output", err, out.String(), test.part)
			}
		})
	}
}

func TestRenderSaysWhichCapacityANodeMustNotHave(t *testing.T) {
	for name, test := range map[string]struct {
		annotations string
		terms       int
		want        string
	}{
		"spot of any model":       {"{spotbench.dev/capacity: spot}", 1, "- on-demand\n            - reserved"},
		"on demand of any model":  {"{spotbench.dev/capacity: on-demand}", 1, "kubernetes.azure.com/scalesetpriority"},
		"spot in each term":       {"{spotbench.dev/capacity: spot, spotbench.dev/gpu-model: L4-24GB}", 3, "- on-demand\n            - reserved"},
		"any capacity, any model": {"{spotbench.dev/capacity: any}", 0, "schedulerName: spotbench"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, again bytes.Buffer
			if err := render(strings.NewReader("kind: Pod\nmetadata: {annotations: "+test.annotations+"}\nspec: {containers: []}\n"), &out); err != nil {
				t.Fatal(err)
			}
			if got := strings.Count(out.String(), "- matchExpressions:"); got != test.terms || !strings.Contains(out.String(), test.want) {
				t.Errorf("%d terms, want %d, and %q in:\n%s", got, test.terms, test.want, out.String())
			}
			if err := render(bytes.NewReader(out.Bytes()), &again); err != nil || again.String() != out.String() {
				t.Errorf("rendered again it is another: %v\n%s", err, again.String())
			}
		})
	}
}
