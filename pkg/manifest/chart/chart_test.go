// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	helm "helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"sigs.k8s.io/yaml"

	"github.com/spotbench/spotbench/pkg/manifest"
	"github.com/spotbench/spotbench/pkg/manifest/chart"
)

const (
	manifests = "../../../manifests"
	directory = "../../../charts/spotbench"
)

func load(t *testing.T) *helm.Chart {
	t.Helper()
	c, err := loader.Load(directory)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// render is what `helm template` makes of the chart: objects by name. The values are YAML.
func render(t *testing.T, values string) (map[string]manifest.Object, error) {
	t.Helper()
	c := load(t)
	var given map[string]any
	if err := yaml.Unmarshal([]byte(values), &given); err != nil {
		t.Fatal(err)
	}
	all, err := chartutil.ToRenderValues(c, given, chartutil.ReleaseOptions{Name: "spotbench", Namespace: "default", IsInstall: true}, nil)
	if err != nil {
		return nil, err
	}
	files, err := engine.Render(c, all)
	if err != nil {
		return nil, err
	}
	objects := map[string]manifest.Object{}
	for name, text := range files {
		if filepath.Ext(name) != ".yaml" {
			continue
		}
		for document := range bytes.SplitSeq([]byte(text), []byte("\n---\n")) {
			var o manifest.Object
			if err := yaml.Unmarshal(bytes.TrimPrefix(document, []byte("---\n")), &o.Object); err != nil {
				t.Fatalf("%s: %v\n%s", name, err, document)
			}
			if o.Object != nil {
				objects[o.String()] = o
			}
		}
	}
	return objects, nil
}

func rendered(t *testing.T, values string) map[string]manifest.Object {
	t.Helper()
	objects, err := render(t, values)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// plain is an object as YAML has it, whatever numbers it was made of.
func plain(t *testing.T, o manifest.Object) any {
	t.Helper()
	text, err := yaml.Marshal(o.Object)
	if err != nil {
		t.Fatal(err)
	}
	var out any
	if err := yaml.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestTheChartIsObjectByObjectWhatKustomizeRenders(t *testing.T) {
	got := rendered(t, "")
	want := map[string]manifest.Object{}
	for _, p := range chart.Parts {
		objects, err := manifest.Build(filepath.Join(manifests, p.Dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objects {
			want[o.String()] = o
		}
	}
	for name, o := range want {
		other, ok := got[name]
		if !ok {
			t.Errorf("the chart has no %s", name)
			continue
		}
		if diff := cmp.Diff(plain(t, o), plain(t, other)); diff != "" {
			t.Errorf("%s (-kustomize +chart):\n%s", name, diff)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("only the chart has %s", name)
		}
	}
	t.Logf("%d objects", len(got))
}

func TestTheTemplatesAreUpToDate(t *testing.T) {
	templates, err := chart.Templates(manifests)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range templates {
		got, err := os.ReadFile(filepath.Join(directory, "templates", name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s differs from manifests/base; run \"go generate ./pkg/manifest/chart\" (%v)", name, err)
		}
	}
}

// field of an object, by keys and indexes of lists.
func field(o manifest.Object, path ...any) any {
	var at any = o.Object
	for _, step := range path {
		switch step := step.(type) {
		case string:
			m, _ := at.(map[string]any)
			at = m[step]
		case int:
			l, _ := at.([]any)
			if step >= len(l) {
				return nil
			}
			at = l[step]
		}
	}
	return at
}

func TestValuesReachTheFieldsThatTheyAreFor(t *testing.T) {
	const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	objects := rendered(t, `
image: {registry: example.com/gpu, tag: v9, pullPolicy: Always, pullSecrets: [{name: puller}], digests: {catalog-api: "`+digest+`"}}
scheduler: {replicas: 2, env: [{name: GOMAXPROCS, value: "2"}]}
nodeAgent: {env: [{name: SPOTBENCH_STORE, value: "s3://bucket"}], nodeSelector: {a: b}, resources: {limits: {memory: 1Gi}}}
catalog: {replicas: 3, resources: {requests: {cpu: 2}}}
`)
	container := []any{"spec", "template", "spec", "containers", 0}
	of := func(kind string, path ...any) any { return field(objects[kind], path...) }
	for name, c := range map[string]struct{ got, want any }{
		"the registry and tag":        {of("Deployment spotbench-system/scheduler", append(container, "image")...), "example.com/gpu/scheduler:v9"},
		"a digest before the tag":     {of("Deployment model-catalog/catalog-api", append(container, "image")...), "example.com/gpu/catalog-api@" + digest},
		"the pull policy":             {of("DaemonSet spotbench-system/node-agent", append(container, "imagePullPolicy")...), "Always"},
		"secrets to pull with":        {of("DaemonSet spotbench-system/node-agent", "spec", "template", "spec", "imagePullSecrets", 0, "name"), "puller"},
		"how many schedulers":         {of("Deployment spotbench-system/scheduler", "spec", "replicas"), 2.0},
		"an environment of its own":   {of("Deployment spotbench-system/scheduler", append(container, "env", 0, "name")...), "GOMAXPROCS"},
		"more of an environment":      {variable(of("DaemonSet spotbench-system/node-agent", append(container, "env")...), "SPOTBENCH_STORE"), "s3://bucket"},
		"what was there stays":        {of("DaemonSet spotbench-system/node-agent", append(container, "env", 0, "name")...), "NODE_NAME"},
		"resources are merged":        {of("DaemonSet spotbench-system/node-agent", append(container, "resources", "requests", "cpu")...), "20m"},
		"a limit":                     {of("DaemonSet spotbench-system/node-agent", append(container, "resources", "limits", "memory")...), "1Gi"},
		"which nodes":                 {of("DaemonSet spotbench-system/node-agent", "spec", "template", "spec", "nodeSelector", "a"), "b"},
		"how many catalogs":           {of("Deployment model-catalog/catalog-api", "spec", "replicas"), 3.0},
		"a number for a quantity":     {of("Deployment model-catalog/catalog-api", append(container, "resources", "requests", "cpu")...), 2.0},
		"the catalog's own variables": {of("Deployment model-catalog/catalog-api", append(container, "env", 0, "name")...), "DATABASE_URL"},
	} {
		if !cmp.Equal(c.got, c.want) {
			t.Errorf("%s: %v, want %v", name, c.got, c.want)
		}
	}
}

// variable is the value of an environment's variable.
func variable(env any, name string) any {
	list, _ := env.([]any)
	for _, v := range list {
		if v, _ := v.(map[string]any); v["name"] == name {
			return v["value"]
		}
	}
	return nil
}

func TestWhatIsSwitchedOffIsNotRendered(t *testing.T) {
	all := rendered(t, "")
	for values, gone := range map[string]string{
		"namespaces: {create: false}": "Namespace gpu-workloads",
		"admission: {enabled: false}": "ValidatingAdmissionPolicy spotbench-annotations-pods",
		"scheduler: {enabled: false}": "Deployment spotbench-system/scheduler",
		"nodeAgent: {enabled: false}": "DaemonSet spotbench-system/node-agent",
		"catalog: {enabled: false}":   "Deployment model-catalog/catalog-api",
	} {
		if _, there := all[gone]; !there {
			t.Errorf("no %s to switch off", gone)
		}
		objects := rendered(t, values)
		if _, still := objects[gone]; still || len(objects) == 0 {
			t.Errorf("%s: %s is there, of %d objects", values, gone, len(objects))
		}
	}
}

func TestWrongValuesAreRefusedByTheSchema(t *testing.T) {
	for values, says := range map[string]string{
		"image: {tag: latest}":                          "tag",
		"image: {pullPolicy: Sometimes}":                "pullPolicy",
		"image: {digests: {scheduler: abc}}":            "digests",
		"scheduler: {replica: 2}":                       "replica",
		"scheduler: {replicas: 0}":                      "replicas",
		"nodeAgent: {resources: {limits: {memory: x}}}": "memory",
		"catalog: {env: [{value: a}]}":                  "env",
		"catalogue: {}":                                 "catalogue",
	} {
		_, err := render(t, values)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want a refusal that names %s", values, err, says)
		}
	}
}

func TestEveryDefaultIsInTheSchemaByName(t *testing.T) {
	c := load(t)
	var schema struct {
		Properties map[string]struct {
			Properties map[string]any `json:"properties"`
		} `json:"properties"`
	}
	if err := yaml.Unmarshal(c.Schema, &schema); err != nil {
		t.Fatal(err)
	}
	for _, group := range slices.Sorted(maps.Keys(c.Values)) {
		for name := range c.Values[group].(map[string]any) {
			if _, known := schema.Properties[group].Properties[name]; !known {
				t.Errorf("values.yaml has %s.%s, which the schema does not know", group, name)
			}
		}
	}
}
