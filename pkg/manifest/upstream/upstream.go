// SPDX-License-Identifier: Apache-2.0

// Package upstream gets what defines the kinds that the manifests use, from the Go
// modules of those who define them: a machine that can build this tree has them, and no
// schema host is asked.
package upstream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

// module is a pinned version of a Go module, of which only files are read.
type module struct {
	path, version string
	// sum is its checksum as in a go.sum.
	sum string
	// crds are patterns of files with CustomResourceDefinitions.
	crds []string
}

var kubernetes = module{path: "k8s.io/kubernetes", version: "v1.34.4", sum: "h1:Yy6R4QB8C9kJPp25GFqEvX5XQwY5qzKeqD0Xx6oAcmk="}

// definers of custom resources. Karpenter's provider for AWS (EC2NodeClass) is not to
// be had as a module.
var definers = []module{
	{path: "github.com/argoproj/argo-cd/v3", version: "v3.1.0", sum: "h1:2+gPskQKCyPC9DzRSWQ1AvmS3WiIlRR7bKz/FO3DozI=",
		crds: []string{"manifests/crds/*-crd.yaml"}},
	{path: "github.com/argoproj/argo-workflows/v3", version: "v3.7.4", sum: "h1:oA/DxaSsjb6fMYaygf7JVQgnsF+ZzlfUPy5kIfLsCic=",
		crds: []string{"manifests/base/crds/full/argoproj.io_*.yaml"}},
	{path: "github.com/cloudnative-pg/cloudnative-pg", version: "v1.26.0", sum: "h1:X+ayWg6TXqglziSPejKiviPTf/CSh4AmYXx1mrS3i8s=",
		crds: []string{"config/crd/bases/*.yaml"}},
	{path: "github.com/external-secrets/external-secrets", version: "v0.19.2", sum: "h1:bdOpEt9Pww2e8QGh4apX7M0nehwNOVAQJLd8z6hAXWI=",
		crds: []string{"config/crds/bases/external-secrets.io_*.yaml", "config/crds/bases/generators.external-secrets.io_generatorstates.yaml"}},
	{path: "github.com/kedacore/keda/v2", version: "v2.21.0", sum: "h1:R6z2HZvstK4RLUMxroNACzBj74xGxt3kG59b5Xc+Xps=",
		crds: []string{"config/crd/bases/keda.sh_*.yaml"}},
	{path: "github.com/prometheus-operator/prometheus-operator", version: "v0.85.0", sum: "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
		crds: []string{"example/prometheus-operator-crd/*.yaml"}},
	{path: "k8s.io/autoscaler/vertical-pod-autoscaler", version: "v1.8.1", sum: "h1:Pe8bV1wozN4gOKO1rleiIY5alIyAXN+DnXDbXQcL4fI=",
		crds: []string{"deploy/vpa-v1-crd-gen.yaml"}},
	{path: "sigs.k8s.io/gateway-api", version: "v1.4.0", sum: "h1:ZwlNM6zOHq0h3WUX2gfByPs2yAEsy/EenYJB78jpQfQ=",
		crds: []string{"config/crd/standard/gateway.networking.k8s.io_*.yaml"}},
	{path: "sigs.k8s.io/karpenter", version: "v1.8.0", sum: "h1:AmTHUPtnuL8IX9mbcD3NOohyk62idrBCBtM+8Wn6Jvk=",
		crds: []string{"pkg/apis/crds/*.yaml", "kwok/apis/crds/*.yaml"}},
}

// OpenAPI is Kubernetes' own OpenAPI 2 document.
func OpenAPI(ctx context.Context) ([]byte, error) {
	dir, err := kubernetes.get(ctx)
	if err != nil {
		return nil, err
	}
	document, err := os.ReadFile(filepath.Join(dir, "api", "openapi-spec", "swagger.json"))
	if err != nil {
		return nil, fmt.Errorf("read Kubernetes' OpenAPI document: %w", err)
	}
	return document, nil
}

// CRDs are the CustomResourceDefinitions of all modules, in their order.
func CRDs(ctx context.Context) ([]*apiextensions.CustomResourceDefinition, error) {
	found := make([][]*apiextensions.CustomResourceDefinition, len(definers))
	g, ctx := errgroup.WithContext(ctx)
	for i, m := range definers {
		g.Go(func() error {
			dir, err := m.get(ctx)
			if err != nil {
				return err
			}
			found[i], err = m.definitions(dir)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err //nolint:wrapcheck // each says which module it is about
	}
	return slices.Concat(found...), nil
}

// definitions in the module's files.
func (m module) definitions(dir string) ([]*apiextensions.CustomResourceDefinition, error) {
	var all []*apiextensions.CustomResourceDefinition
	for _, pattern := range m.crds {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(files) == 0 {
			return nil, fmt.Errorf("%s@%s has no %s: %w", m.path, m.version, pattern, errors.Join(err, os.ErrNotExist))
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				return nil, fmt.Errorf("definitions of %s: %w", m.path, err)
			}
			crds, err := ReadCRDs(data)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			all = append(all, crds...)
		}
	}
	return all, nil
}

// ReadCRDs reads the CustomResourceDefinitions of a YAML file and passes over the rest.
func ReadCRDs(data []byte) ([]*apiextensions.CustomResourceDefinition, error) {
	var crds []*apiextensions.CustomResourceDefinition
	for document := range bytes.SplitSeq(data, []byte("\n---\n")) {
		crd := new(apiextensions.CustomResourceDefinition)
		if err := yaml.Unmarshal(document, crd); err != nil {
			return nil, fmt.Errorf("read a CustomResourceDefinition: %w", err)
		}
		if crd.Kind == "CustomResourceDefinition" {
			crds = append(crds, crd)
		}
	}
	return crds, nil
}

// get is the module's directory in the module cache; it is downloaded where it is not
// there yet.
func (m module) get(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", m.path+"@"+m.version)
	// Outside of this tree's module, whose replacements and sums are not meant here.
	cmd.Dir = os.TempDir()
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
	out, err := cmd.Output()
	var got struct{ Dir, Sum, Error string }
	if decoded := json.Unmarshal(out, &got); decoded != nil || got.Error != "" {
		return "", fmt.Errorf("go mod download %s@%s: %s: %w", m.path, m.version, got.Error, errors.Join(err, decoded))
	}
	if got.Sum != m.sum {
		return "", fmt.Errorf("%s@%s has the checksum %s, not the %s that was pinned", m.path, m.version, strings.TrimSpace(got.Sum), m.sum)
	}
	return got.Dir, nil
}
