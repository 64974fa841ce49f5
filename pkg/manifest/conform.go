// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/yannh/kubeconform/pkg/resource"
	"github.com/yannh/kubeconform/pkg/validator"
	"sigs.k8s.io/yaml"

	"github.com/spotbench/spotbench/pkg/manifest/policy"
	"github.com/spotbench/spotbench/pkg/manifest/schema"
	"github.com/spotbench/spotbench/pkg/manifest/upstream"
)

// Schemas are those of Kubernetes and of every module that defines kinds we use.
func Schemas(ctx context.Context) (*schema.Library, error) {
	document, err := upstream.OpenAPI(ctx)
	if err != nil {
		return nil, fmt.Errorf("schemas of Kubernetes: %w", err)
	}
	library, err := schema.FromOpenAPI(document)
	if err != nil {
		return nil, fmt.Errorf("schemas of Kubernetes: %w", err)
	}
	crds, err := upstream.CRDs(ctx)
	if err != nil {
		return nil, fmt.Errorf("schemas of custom resources: %w", err)
	}
	for _, crd := range crds {
		if err := library.AddCRD(crd); err != nil {
			return nil, fmt.Errorf("schemas of custom resources: %w", err)
		}
	}
	return library, nil
}

// Linter checks objects by schema and by policy.
type Linter struct {
	schemas *schema.Library
	kinds   map[string]bool // written to dir
	dir     string
	conform validator.Validator
	// withoutSchema are kinds, as apiVersion/kind, that no schema is at hand for.
	withoutSchema map[string]bool
}

// Location of a schema as kubeconform is told it.
const location = "{{.Group}}_{{.ResourceAPIVersion}}_{{.ResourceKind}}.json"

// NewLinter makes one that puts the schemas it needs into the directory. Objects of the
// kinds without a schema (as apiVersion/kind) are held to the policy alone; any other
// unknown kind is a finding.
func NewLinter(library *schema.Library, dir string, withoutSchema ...string) (*Linter, error) {
	conform, err := validator.New([]string{filepath.Join(dir, location)}, validator.Opts{Strict: true})
	if err != nil {
		return nil, fmt.Errorf("start kubeconform: %w", err)
	}
	l := &Linter{schemas: library, dir: dir, conform: conform, kinds: map[string]bool{}, withoutSchema: map[string]bool{}}
	for _, kind := range withoutSchema {
		l.withoutSchema[kind] = true
	}
	return l, nil
}

// Lint says what is wrong with an object, a line for each finding: file, object, field,
// problem and what to do.
func (l *Linter) Lint(o *Object) ([]string, error) {
	var lines []string
	add := func(field, problem, fix string) {
		lines = append(lines, fmt.Sprintf("%s: %s: %s: %s; %s", o.File, o, field, problem, fix))
	}
	for _, f := range policy.Check(&o.Unstructured) {
		add(f.Field, f.Problem, f.Fix)
	}
	kind := o.GetAPIVersion() + "/" + o.GetKind()
	if l.withoutSchema[kind] {
		return lines, nil
	}
	known, err := l.write(o)
	if err != nil {
		return nil, err
	}
	if !known {
		add("kind", "no schema is known for "+kind, "correct apiVersion and kind, or add the module that defines it to pkg/manifest/upstream")
		return lines, nil
	}
	data, err := yaml.Marshal(o.Object)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", o, err)
	}
	result := l.conform.ValidateResource(resource.Resource{Path: o.File, Bytes: data})
	if result.Status == validator.Valid {
		return lines, nil
	}
	explain := "see kubectl explain " + strings.ToLower(o.GetKind())
	found := parts(result.Err.Error())
	for _, e := range found {
		add(e.Path, e.Msg, explain)
	}
	if len(found) == 0 {
		add("document", result.Err.Error(), explain)
	}
	return lines, nil
}

// parts takes kubeconform's text of a failed validation apart. The list that comes with
// it ends at the first reference within the schema and says only "validation failed".
func parts(text string) []validator.ValidationError {
	var found []validator.ValidationError
	for part := range strings.SplitSeq(text, "- at '") {
		path, problem, ok := strings.Cut(part, "': ")
		problem = strings.TrimSpace(problem)
		if !ok || !strings.HasPrefix(path, "/") && path != "" || problem == "validation failed" {
			continue
		}
		field := strings.ReplaceAll(strings.TrimPrefix(path, "/"), "/", ".")
		if field == "" {
			field = "document"
		}
		found = append(found, validator.ValidationError{Path: field, Msg: problem})
	}
	return found
}

// write puts the schema of the object's kind where kubeconform looks for it.
func (l *Linter) write(o *Object) (known bool, err error) {
	gvk := o.GroupVersionKind()
	group := gvk.Group
	if group == "" {
		group = gvk.Version
	}
	file := fmt.Sprintf("%s_%s_%s.json", group, gvk.Version, strings.ToLower(gvk.Kind))
	if l.kinds[file] {
		return true, nil
	}
	document, known := l.schemas.Schema(gvk)
	if !known {
		return false, nil
	}
	l.kinds[file] = true
	if err := os.WriteFile(filepath.Join(l.dir, file), document, 0o600); err != nil {
		return false, fmt.Errorf("write a schema: %w", err)
	}
	return true, nil
}
