// SPDX-License-Identifier: Apache-2.0

// Package schema makes JSON Schemas of Kubernetes' kinds from what defines them:
// Kubernetes' own OpenAPI document and the CustomResourceDefinitions of others. They
// are strict: a field that a kind does not have is an error, not ignored as the API
// server ignores it.
package schema

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const (
	refPrefix  = "#/definitions/"
	objectMeta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
	quantity   = "io.k8s.apimachinery.pkg.api.resource.Quantity"
	kindsKey   = "x-kubernetes-group-version-kind"
)

type object = map[string]any

// Library has the schemas of kinds.
type Library struct {
	definitions object
	// kinds are names of definitions.
	kinds map[schema.GroupVersionKind]string
	// custom are the schemas of custom resources.
	custom map[schema.GroupVersionKind]object
}

// FromOpenAPI reads Kubernetes' OpenAPI 2 document (api/openapi-spec/swagger.json).
func FromOpenAPI(document []byte) (*Library, error) {
	var swagger struct {
		Definitions map[string]object `json:"definitions"`
	}
	if err := json.Unmarshal(document, &swagger); err != nil {
		return nil, fmt.Errorf("read the OpenAPI document: %w", err)
	}
	if swagger.Definitions[objectMeta] == nil {
		return nil, errors.New("the OpenAPI document is not Kubernetes': it does not define " + objectMeta)
	}
	l := &Library{definitions: object{}, kinds: map[schema.GroupVersionKind]string{}, custom: map[schema.GroupVersionKind]object{}}
	for name, definition := range swagger.Definitions {
		kinds, _ := definition[kindsKey].([]any)
		for _, k := range kinds {
			kind, _ := k.(object)
			gvk := schema.GroupVersionKind{Group: text(kind, "group"), Version: text(kind, "version"), Kind: text(kind, "kind")}
			if len(kinds) == 1 { // DeleteOptions and the like belong to every group
				l.kinds[gvk] = name
			}
		}
		if name == quantity {
			definition = object{"type": []any{"string", "number"}}
		}
		l.definitions[name] = strict(definition)
	}
	return l, nil
}

// AddCRD adds the kinds of a CustomResourceDefinition, all its served versions.
func (l *Library) AddCRD(crd *apiextensions.CustomResourceDefinition) error {
	for i := range crd.Spec.Versions {
		version := &crd.Spec.Versions[i]
		if !version.Served || version.Schema == nil || version.Schema.OpenAPIV3Schema == nil {
			continue
		}
		data, err := json.Marshal(version.Schema.OpenAPIV3Schema)
		if err != nil {
			return fmt.Errorf("schema of %s %s: %w", crd.Name, version.Name, err)
		}
		var root object
		if err := json.Unmarshal(data, &root); err != nil {
			return fmt.Errorf("schema of %s %s: %w", crd.Name, version.Name, err)
		}
		properties, _ := root["properties"].(object)
		if properties == nil {
			properties = object{}
			root["properties"] = properties
		}
		// What every object has, whether the definition says so or not.
		properties["apiVersion"] = object{"type": "string"}
		properties["kind"] = object{"type": "string"}
		properties["metadata"] = object{"$ref": refPrefix + objectMeta}
		l.custom[schema.GroupVersionKind{Group: crd.Spec.Group, Version: version.Name, Kind: crd.Spec.Names.Kind}] = strict(root)
	}
	return nil
}

// Schema is the schema of a kind as a document of its own, or false where the kind is
// not known.
func (l *Library) Schema(gvk schema.GroupVersionKind) ([]byte, bool) {
	root := object{}
	if custom, ok := l.custom[gvk]; ok {
		root = maps.Clone(custom)
	} else if name, ok := l.kinds[gvk]; ok {
		root["$ref"] = refPrefix + name
	} else {
		return nil, false
	}
	needed := object{}
	l.collect(root, needed)
	root["definitions"] = needed
	document, err := json.Marshal(root)
	return document, err == nil
}

// Kinds are those that have a schema, in order.
func (l *Library) Kinds() []schema.GroupVersionKind {
	kinds := slices.AppendSeq(slices.Collect(maps.Keys(l.kinds)), maps.Keys(l.custom))
	slices.SortFunc(kinds, func(a, b schema.GroupVersionKind) int { return strings.Compare(a.String(), b.String()) })
	return kinds
}

// collect adds the definitions that a schema refers to.
func (l *Library) collect(node any, into object) {
	switch node := node.(type) {
	case object:
		if name, ok := strings.CutPrefix(text(node, "$ref"), refPrefix); ok && into[name] == nil && l.definitions[name] != nil {
			into[name] = l.definitions[name]
			l.collect(into[name], into)
		}
		for _, child := range node {
			l.collect(child, into)
		}
	case []any:
		for _, child := range node {
			l.collect(child, into)
		}
	}
}

// strict closes a schema: objects with known properties have no others. What stands
// under allOf, anyOf, oneOf and not only narrows the schema that it belongs to, and
// stays as it is.
func strict(s object) object {
	s = maps.Clone(s)
	if s["x-kubernetes-int-or-string"] == true || s["format"] == "int-or-string" {
		delete(s, "format")
		s["type"] = []any{"string", "integer"}
	}
	if s["nullable"] == true && s["type"] != nil {
		if one, ok := s["type"].(string); ok {
			s["type"] = []any{one, "null"}
		}
		if enum, ok := s["enum"].([]any); ok {
			s["enum"] = append(slices.Clone(enum), nil)
		}
	}
	open := s["x-kubernetes-preserve-unknown-fields"] == true || s["x-kubernetes-embedded-resource"] == true
	if properties, ok := s["properties"].(object); ok {
		closed := object{}
		for name, property := range properties {
			closed[name] = strictAny(property)
		}
		s["properties"] = closed
		if s["additionalProperties"] == nil && !open {
			s["additionalProperties"] = false
		}
	}
	for _, key := range []string{"items", "additionalProperties"} {
		if s[key] != nil {
			s[key] = strictAny(s[key])
		}
	}
	return s
}

func strictAny(v any) any {
	if s, ok := v.(object); ok {
		return strict(s)
	}
	return v
}

func text(o object, key string) string {
	s, _ := o[key].(string)
	return s
}
