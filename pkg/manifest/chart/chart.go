// SPDX-License-Identifier: Apache-2.0

// Package chart makes the templates of the Helm chart from the kustomizations under
// manifests/base, so that there is one source of both: an object is rendered by
// kustomize, and the fields that people change are replaced by values.
package chart

//go:generate go run ./internal/generate -manifests ../../../manifests -out ../../../charts/spotbench/templates

import (
	"bytes"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/spotbench/spotbench/pkg/manifest"
)

// Part is a kustomization that becomes a template.
type Part struct {
	// Template is the name of its file; Dir is the kustomization's.
	Template, Dir string
	// If is the value that must be true for it to be rendered.
	If string
}

// Parts of the chart, each a kustomization of its own.
var Parts = []Part{
	{"namespaces.yaml", "base/namespaces", "namespaces.create"},
	{"admission.yaml", "base/admission", "admission.enabled"},
	{"scheduler.yaml", "base/scheduler", "scheduler.enabled"},
	{"node-agent.yaml", "base/node-agent", "nodeAgent.enabled"},
	{"catalog.yaml", "base/catalog", "catalog.enabled"},
}

// value is a field that a value of the chart stands for.
type value struct {
	object string // as manifest.Object's String
	path   []string
	// Exactly one of these: text replaces a scalar, whole a field's whole value, and
	// more is a list of elements that are added to the field's.
	text, whole, more string
}

var (
	ofPod       = []string{"spec", "template", "spec"}
	ofContainer = []string{"spec", "template", "spec", "containers", "0"}
)

func at(base []string, path ...string) []string { return append(append([]string{}, base...), path...) }

// workloads are our three parts, with the names of their values.
var workloads = []struct{ object, values, image string }{
	{"Deployment spotbench-system/scheduler", "scheduler", "scheduler"},
	{"DaemonSet spotbench-system/node-agent", "nodeAgent", "node-agent"},
	{"Deployment model-catalog/catalog-api", "catalog", "catalog-api"},
}

func values() []value {
	var all []value
	for _, w := range workloads {
		all = append(all,
			value{object: w.object, path: at(ofContainer, "image"), text: `{{ include "spotbench.image" (list . ` + strconv.Quote(w.image) + `) }}`},
			value{object: w.object, path: at(ofContainer, "imagePullPolicy"), text: "{{ .Values.image.pullPolicy }}"},
			value{object: w.object, path: at(ofContainer, "resources"), whole: w.values + ".resources"},
			value{object: w.object, path: at(ofContainer, "env"), more: w.values + ".env"},
			value{object: w.object, path: at(ofPod, "imagePullSecrets"), more: "image.pullSecrets"},
		)
	}
	return append(all,
		value{object: workloads[0].object, path: []string{"spec", "replicas"}, text: "{{ .Values.scheduler.replicas }}"},
		value{object: workloads[1].object, path: at(ofPod, "nodeSelector"), whole: "nodeAgent.nodeSelector"},
		value{object: workloads[2].object, path: []string{"spec", "replicas"}, text: "{{ .Values.catalog.replicas }}"},
	)
}

// Templates renders the parts in the directory of the manifests; the result has the
// content of each template by its name.
func Templates(manifests string) (map[string][]byte, error) {
	out := map[string][]byte{}
	used := map[int]bool{}
	all := values()
	for _, p := range Parts {
		objects, err := manifest.Build(filepath.Join(manifests, p.Dir))
		if err != nil {
			return nil, err
		}
		b := bytes.NewBufferString("{{- /*\nSPDX-License-Identifier: Apache-2.0\nGenerated from manifests/" + p.Dir + " by \"go generate ./pkg/manifest/chart\". Do not edit.\n*/ -}}\n")
		fmt.Fprintf(b, "{{- if .Values.%s }}\n", p.If)
		for i := range objects {
			text, err := template(&objects[i], all, used)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", &objects[i], err)
			}
			b.WriteString("---\n" + text)
		}
		b.WriteString("{{- end }}\n")
		out[p.Template] = b.Bytes()
	}
	for i, v := range all {
		if !used[i] {
			return nil, fmt.Errorf("no object %s for the value at %s", v.object, strings.Join(v.path, "."))
		}
	}
	return out, nil
}

// mark stands for a value until the object is text.
func mark(i int) string { return fmt.Sprintf("@value-%d@", i) }

var (
	markedText  = regexp.MustCompile(`'?@value-(\d+)@'?`)
	markedBlock = regexp.MustCompile(`(?m)^( *)([^\n]*?)'?@value-(\d+)@'?\n`)
)

// template is the object's text with its values put in.
func template(o *manifest.Object, all []value, used map[int]bool) (string, error) {
	for i, v := range all {
		if v.object != o.String() {
			continue
		}
		used[i] = true
		if err := set(o.Object, v, mark(i)); err != nil {
			return "", err
		}
	}
	text, err := yaml.Marshal(o.Object)
	if err != nil {
		return "", err
	}
	// What looks like a template in the manifests, such as Prometheus', is none of ours.
	escaped := strings.ReplaceAll(string(text), "{{", `{{ "{{" }}`)
	blocks := markedBlock.ReplaceAllStringFunc(escaped, func(line string) string {
		m := markedBlock.FindStringSubmatch(line)
		i, _ := strconv.Atoi(m[3]) // digits, by the pattern
		v, depth := all[i], len(m[1])
		switch {
		case v.whole != "":
			return fmt.Sprintf("%s%s\n{{ toYaml .Values.%s | indent %d }}\n", m[1], strings.TrimRight(m[2], " "), v.whole, depth+2)
		case v.more != "" && m[2] == "- ":
			return fmt.Sprintf("{{- with .Values.%s }}\n{{ toYaml . | indent %d }}\n{{- end }}\n", v.more, depth)
		case v.more != "":
			return fmt.Sprintf("{{- with .Values.%s }}\n%s%s\n{{ toYaml . | indent %d }}\n{{- end }}\n", v.more, m[1], strings.TrimRight(m[2], " "), depth+2)
		}
		return line
	})
	return markedText.ReplaceAllStringFunc(blocks, func(found string) string {
		i, _ := strconv.Atoi(markedText.FindStringSubmatch(found)[1])
		return all[i].text
	}), nil
}

// set puts the mark where the value goes.
func set(content map[string]any, v value, mark string) error {
	var parent any = content
	for _, key := range v.path[:len(v.path)-1] {
		switch p := parent.(type) {
		case map[string]any:
			parent = p[key]
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i >= len(p) {
				return fmt.Errorf("no element %s on the way to %s", key, strings.Join(v.path, "."))
			}
			parent = p[i]
		}
	}
	fields, ok := parent.(map[string]any)
	if !ok {
		return fmt.Errorf("no field %s", strings.Join(v.path, "."))
	}
	last := v.path[len(v.path)-1]
	if v.more != "" {
		if elements, ok := fields[last].([]any); ok {
			fields[last] = append(elements, mark)
			return nil
		}
	}
	fields[last] = mark
	return nil
}
