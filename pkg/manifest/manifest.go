// SPDX-License-Identifier: Apache-2.0

// Package manifest renders kustomizations as `kubectl apply -k` does, and keeps of
// every object the file that it is written in.
package manifest

import (
	"fmt"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

const originAnnotation = "config.kubernetes.io/origin"

// Object is one object of a kustomization.
type Object struct {
	unstructured.Unstructured
	// File is where it is written, relative to the working directory; of a generated
	// object, the kustomization that generates it.
	File string
}

// String names the object as kubectl does, with its namespace.
func (o *Object) String() string {
	name := o.GetKind() + " " + o.GetName()
	if ns := o.GetNamespace(); ns != "" {
		name = o.GetKind() + " " + ns + "/" + o.GetName()
	}
	return name
}

// Build renders the kustomization in the directory.
func Build(dir string) ([]Object, error) {
	rendered, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(withOrigins{filesys.MakeFsOnDisk(), dir}, dir)
	if err != nil {
		return nil, fmt.Errorf("kustomize build %s: %w", dir, err)
	}
	objects := make([]Object, 0, rendered.Size())
	for _, resource := range rendered.Resources() {
		// By JSON, because unstructured objects have int64 where kustomize has int.
		data, err := resource.MarshalJSON()
		if err != nil {
			return nil, fmt.Errorf("kustomize build %s: %w", dir, err)
		}
		var o Object
		if err := o.UnmarshalJSON(data); err != nil {
			return nil, fmt.Errorf("kustomize build %s: %w", dir, err)
		}
		if o.File, err = takeOrigin(&o.Unstructured, dir); err != nil {
			return nil, fmt.Errorf("kustomize build %s: %w", dir, err)
		}
		objects = append(objects, o)
	}
	return objects, nil
}

func takeOrigin(o *unstructured.Unstructured, dir string) (string, error) {
	annotations := o.GetAnnotations()
	var origin struct {
		Path         string `json:"path"`
		ConfiguredIn string `json:"configuredIn"`
	}
	if err := yaml.Unmarshal([]byte(annotations[originAnnotation]), &origin); err != nil {
		return "", fmt.Errorf("origin of %s %s: %w", o.GetKind(), o.GetName(), err)
	}
	delete(annotations, originAnnotation)
	if len(annotations) == 0 {
		annotations = nil
	}
	o.SetAnnotations(annotations)
	path := origin.Path
	if path == "" {
		path = origin.ConfiguredIn
	}
	return filepath.Join(dir, path), nil
}

// withOrigins is the disk, but that the outermost kustomization asks for the origin of
// every object. It holds for those that it includes as well.
type withOrigins struct {
	filesys.FileSystem
	dir string
}

func (f withOrigins) ReadFile(path string) ([]byte, error) {
	data, err := f.FileSystem.ReadFile(path)
	if err != nil {
		return nil, err //nolint:wrapcheck // kustomize asks whether it is os.ErrNotExist
	}
	outermost, err := filepath.Abs(f.dir)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", f.dir, err)
	}
	file, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", path, err)
	}
	if filepath.Dir(file) != outermost || !strings.HasPrefix(filepath.Base(file), "kustomization.") {
		return data, nil
	}
	return append(data, "\nbuildMetadata: [originAnnotations]\n"...), nil
}
