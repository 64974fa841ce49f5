// SPDX-License-Identifier: Apache-2.0

package manifest_test

import (
	"strings"
	"testing"

	"github.com/spotbench/spotbench/pkg/manifest"
)

func TestAnObjectKnowsItsFileThroughEveryKustomization(t *testing.T) {
	objects, err := manifest.Build("testdata/outer")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for i := range objects {
		name, _, _ := strings.Cut(objects[i].String(), "-")
		files[name] = objects[i].File
		if a := objects[i].GetAnnotations(); a != nil {
			t.Errorf("%s is rendered with annotations that it does not have: %v", &objects[i], a)
		}
	}
	for name, file := range map[string]string{"ConfigMap made": "testdata/outer/kustomization.yaml", "DaemonSet a/good": "testdata/bad/objects.yaml"} {
		if files[name] != file {
			t.Errorf("%s is in %s, want %s", name, files[name], file)
		}
	}
}

func TestAKustomizationThatDoesNotRenderIsNamed(t *testing.T) {
	if _, err := manifest.Build("testdata/none"); err == nil || !strings.Contains(err.Error(), "testdata/none") {
		t.Errorf("got %v, want an error that names testdata/none", err)
	}
}

func TestEveryFindingNamesFileObjectFieldAndFix(t *testing.T) {
	library, err := manifest.Schemas(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	linter, err := manifest.NewLinter(library, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	objects, err := manifest.Build("testdata/bad")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{
		"Service a/misspelled":    {"spec: ", "'selektor' not allowed; see kubectl explain service"},
		"Deployment a/wrong-type": {"spec.template.spec.containers[0].image: a:latest changes", "; pin a version", "spec.replicas: got string, want integer"},
		"NodePool wrong-enum":     {"spec.disruption.consolidationPolicy: value must be one of 'WhenEmpty'"},
		"HTTPRoute a/misspelled":  {"metadata: ", "'lables' not allowed"},
		"Unknown unknown":         {"kind: no schema is known for example.com/v1/Unknown; correct apiVersion and kind"},
		"DaemonSet a/good":        nil,
	}
	if len(objects) != len(want) {
		t.Fatalf("%d objects, want %d", len(objects), len(want))
	}
	for i := range objects {
		o := &objects[i]
		lines, err := linter.Lint(o)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Join(lines, "\n")
		if (text == "") != (len(want[o.String()]) == 0) {
			t.Errorf("%s: found %q", o, text)
		}
		for _, part := range want[o.String()] {
			if !strings.Contains(text, part) {
				t.Errorf("%s: no %q in:\n%s", o, part, text)
			}
		}
		for _, line := range lines {
			if !strings.HasPrefix(line, "testdata/bad/objects.yaml: "+o.String()+": ") {
				t.Errorf("a finding does not begin with file and object: %s", line)
			}
		}
	}
}

func TestAKindWithoutSchemaIsLetPassOnlyByName(t *testing.T) {
	library, err := manifest.Schemas(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	linter, err := manifest.NewLinter(library, t.TempDir(), "example.com/v1/Other")
	if err != nil {
		t.Fatal(err)
	}
	for kind, findings := range map[string]int{"Other": 0, "Unknown": 1} {
		var o manifest.Object
		o.Object = map[string]any{"apiVersion": "example.com/v1", "kind": kind}
		if lines, err := linter.Lint(&o); err != nil || len(lines) != findings {
			t.Errorf("%s: %q, %v; want %d findings", kind, lines, err, findings)
		}
	}
}
