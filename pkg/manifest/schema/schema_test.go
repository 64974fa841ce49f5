// SPDX-License-Identifier: Apache-2.0

package schema_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	runtimeschema "k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/spotbench/spotbench/pkg/manifest/schema"
	"github.com/spotbench/spotbench/pkg/manifest/upstream"
)

const crd = `
spec:
  group: example.com
  names: {kind: Thing}
  versions:
    - name: v1
      served: true
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec:
              type: object
              required: [size]
              properties:
                size: {anyOf: [{type: integer}, {type: string}], x-kubernetes-int-or-string: true}
                mode: {type: string, enum: [a, b], nullable: true}
                extra: {type: object, x-kubernetes-preserve-unknown-fields: true, properties: {known: {type: string}}}
                labels: {type: object, additionalProperties: {type: string}}
                one: {type: object, properties: {a: {type: string}, b: {type: string}}, oneOf: [{required: [a]}, {properties: {b: {enum: [x]}}, required: [b]}]}
                list: {type: array, items: {type: object, properties: {n: {type: integer}}}}
    - {name: v0, served: false, schema: {openAPIV3Schema: {type: object}}}
`

// library is Kubernetes' own with the definition above.
func library(t *testing.T) *schema.Library {
	t.Helper()
	document, err := upstream.OpenAPI(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l, err := schema.FromOpenAPI(document)
	if err != nil {
		t.Fatal(err)
	}
	var thing apiextensions.CustomResourceDefinition
	if err := yaml.Unmarshal([]byte(crd), &thing); err != nil {
		t.Fatal(err)
	}
	if err := l.AddCRD(&thing); err != nil {
		t.Fatal(err)
	}
	return l
}

func compile(t *testing.T, l *schema.Library, gvk runtimeschema.GroupVersionKind) *jsonschema.Schema {
	t.Helper()
	document, known := l.Schema(gvk)
	if !known {
		t.Fatalf("%s is not known", gvk)
	}
	content, err := jsonschema.UnmarshalJSON(bytes.NewReader(document))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft4)
	if err := c.AddResource("schema.json", content); err != nil {
		t.Fatal(err)
	}
	compiled, err := c.Compile("schema.json")
	if err != nil {
		t.Fatalf("%s: %v", gvk, err)
	}
	return compiled
}

func TestASchemaAcceptsWhatTheAPIServerDoesAndNoUnknownField(t *testing.T) {
	l := library(t)
	thing := func(spec string) string {
		return "{apiVersion: example.com/v1, kind: Thing, metadata: {name: a}, spec: " + spec + "}"
	}
	for name, test := range map[string]struct {
		object string
		valid  bool
	}{
		"the least that is required":                       {thing("{size: 1}"), true},
		"a required field is missing":                      {thing("{}"), false},
		"an int-or-string may be a string":                 {thing("{size: 10%}"), true},
		"an int-or-string may not be a list":               {thing("{size: []}"), false},
		"an unknown field":                                 {thing("{size: 1, sise: 2}"), false},
		"an unknown field in a list":                       {thing("{size: 1, list: [{n: 1}, {m: 1}]}"), false},
		"unknown fields where they are preserved":          {thing("{size: 1, extra: {known: a, more: {b: c}}}"), true},
		"a wrong known field where others are preserved":   {thing("{size: 1, extra: {known: 7}}"), false},
		"any key of a map":                                 {thing("{size: 1, labels: {a: b}}"), true},
		"a map's value of another type":                    {thing("{size: 1, labels: {a: 1}}"), false},
		"null where it may be":                             {thing("{size: 1, mode: null}"), true},
		"a value that is not in an enumeration":            {thing("{size: 1, mode: c}"), false},
		"one of two alternatives":                          {thing("{size: 1, one: {a: x}}"), true},
		"the other alternative, whose schema names a part": {thing("{size: 1, one: {b: x}}"), true},
		"an unknown field in metadata":                     {"{apiVersion: example.com/v1, kind: Thing, metadata: {nam: a}, spec: {size: 1}}", false},
		"a quantity may be a number":                       {`{apiVersion: v1, kind: ResourceQuota, metadata: {name: a}, spec: {hard: {pods: 5, "limits.memory": 1Gi}}}`, true},
		"a Kubernetes kind's unknown field":                {`{apiVersion: v1, kind: ResourceQuota, metadata: {name: a}, spec: {hards: {}}}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			var object map[string]any
			if err := yaml.Unmarshal([]byte(test.object), &object); err != nil {
				t.Fatal(err)
			}
			group, version := "example.com", "v1"
			kind := object["kind"].(string)
			if kind != "Thing" {
				group = ""
			}
			err := compile(t, l, runtimeschema.GroupVersionKind{Group: group, Version: version, Kind: kind}).Validate(object)
			if (err == nil) != test.valid {
				t.Errorf("valid %v, want %v: %v", err == nil, test.valid, err)
			}
		})
	}
}

func TestAVersionThatIsNotServedHasNoSchema(t *testing.T) {
	if _, known := library(t).Schema(runtimeschema.GroupVersionKind{Group: "example.com", Version: "v0", Kind: "Thing"}); known {
		t.Error("example.com/v0 has a schema and is not served")
	}
}

func TestEverySchemaOfKubernetesAndOfEveryModuleCompiles(t *testing.T) {
	l := library(t)
	crds, err := upstream.CRDs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, crd := range crds {
		if err := l.AddCRD(crd); err != nil {
			t.Fatal(err)
		}
	}
	kinds := l.Kinds()
	if len(kinds) < 200 {
		t.Errorf("only %d kinds", len(kinds))
	}
	for _, gvk := range kinds {
		compile(t, l, gvk)
	}
}

func TestADocumentThatIsNotKubernetesIsRefused(t *testing.T) {
	for _, document := range []string{"", "{}", `{"definitions":{"a":{}}}`} {
		if _, err := schema.FromOpenAPI([]byte(document)); err == nil {
			t.Errorf("%q is accepted", document)
		}
	}
}

func FuzzACustomResourceDefinitionNeverMakesBrokenJSON(f *testing.F) {
	f.Add([]byte(crd))
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := schema.FromOpenAPI([]byte(`{"definitions":{"io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta":{"type":"object"}}}`))
		if err != nil {
			t.Fatal(err)
		}
		var definition apiextensions.CustomResourceDefinition
		if yaml.Unmarshal(text, &definition) != nil || l.AddCRD(&definition) != nil {
			return // there is nothing to hold it to
		}
		for _, gvk := range l.Kinds() {
			if document, known := l.Schema(gvk); !known || !json.Valid(document) {
				t.Errorf("%s: %s", gvk, document)
			}
		}
	})
}
