// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	v1 "k8s.io/api/core/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/placement/snapshot"
)

// manifest is what a document says of pods: one itself, or the template of several.
type manifest struct {
	Kind     string `json:"kind"`
	Metadata struct {
		Name         string            `json:"name"`
		GenerateName string            `json:"generateName"`
		Namespace    string            `json:"namespace"`
		Annotations  map[string]string `json:"annotations"`
	} `json:"metadata"`
	Spec  json.RawMessage   `json:"spec"`
	Items []json.RawMessage `json:"items"`
}

// owner is the part of the spec of what has a pod template.
type owner struct {
	Template    template `json:"template"`
	JobTemplate struct {
		Spec *owner `json:"spec"`
	} `json:"jobTemplate"`
	Replicas    *int `json:"replicas"`
	Parallelism *int `json:"parallelism"`
	Completions *int `json:"completions"`
}

// template is one of pods if it has containers; others have templates as well.
type template struct {
	Metadata struct {
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
	Spec json.RawMessage `json:"spec"`
}

func (t template) ofPods() bool {
	var spec struct {
		Containers json.RawMessage `json:"containers"`
	}
	return json.Unmarshal(t.Spec, &spec) == nil && len(spec.Containers) > 0
}

// atOnce is how many of its pods start together.
func (o owner) atOnce() int {
	n := 1
	switch {
	case o.Replicas != nil:
		n = *o.Replicas
	case o.Parallelism != nil:
		n = *o.Parallelism
	}
	if o.Completions != nil {
		n = min(n, *o.Completions)
	}
	return n
}

// mostPods bounds a simulation.
const mostPods = 10000

// readPods reads the pods of documents in their order. Notes are about what is left
// out or would happen otherwise.
func readPods(in io.Reader, namespace string) (pods []snapshot.Pod, notes []string, err error) {
	reader := utilyaml.NewYAMLReader(bufio.NewReader(in))
	for n := 1; ; n++ {
		text, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			text, err = yaml.YAMLToJSON(text)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("document %d: %w", n, err)
		}
		if pods, notes, err = readDocument(text, namespace, pods, notes); err != nil {
			return nil, nil, fmt.Errorf("document %d: %w", n, err)
		}
	}
	if len(pods) == 0 {
		return nil, nil, errors.New("it has no pod and nothing with a pod template")
	}
	return pods, notes, nil
}

func readDocument(data []byte, namespace string, pods []snapshot.Pod, notes []string) ([]snapshot.Pod, []string, error) {
	var m manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, nil, fmt.Errorf("it is not a Kubernetes object: %w", err)
	}
	for i, item := range m.Items {
		var err error
		if pods, notes, err = readDocument(item, namespace, pods, notes); err != nil {
			return nil, nil, fmt.Errorf("items[%d]: %w", i, err)
		}
	}
	if m.Kind == "" || len(m.Items) > 0 {
		return pods, notes, nil
	}
	what := m.Kind + " " + cmp.Or(m.Metadata.Name, m.Metadata.GenerateName)
	pod, copies, err := m.pod()
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("%s: %w", what, err)
	case pod == nil:
		return pods, append(notes, what+" has no pods; it is passed by"), nil
	case len(pods)+copies > mostPods:
		return nil, nil, fmt.Errorf("%s: these are more than %d pods; simulate fewer", what, mostPods)
	}
	if pod.Spec.SchedulerName != benchspec.SchedulerName {
		notes = append(notes, fmt.Sprintf("%s: schedulerName is %q, so that Spotbench would not place it; write %q, or use kubectl spotbench render", what, pod.Spec.SchedulerName, benchspec.SchedulerName))
	}
	pod.Namespace = cmp.Or(m.Metadata.Namespace, namespace)
	name := cmp.Or(m.Metadata.Name, m.Metadata.GenerateName+"0")
	for i := range copies {
		pod.Name = name
		if m.Kind != "Pod" {
			pod.Name = fmt.Sprintf("%s-%d", name, i)
		}
		pods = append(pods, snapshot.PodOf(pod))
	}
	return pods, notes, nil
}

// pod is the document's pod and how many of it there are, nil when it has none.
func (m manifest) pod() (*v1.Pod, int, error) {
	of, copies := template{Spec: m.Spec}, 1
	of.Metadata.Annotations = m.Metadata.Annotations
	if m.Kind != "Pod" {
		var o owner
		if err := json.Unmarshal(m.Spec, &o); err != nil {
			return nil, 0, nil //nolint:nilerr // a spec of quite another form has no pods
		}
		if o.JobTemplate.Spec != nil {
			o = *o.JobTemplate.Spec
		}
		if of = o.Template; !of.ofPods() {
			return nil, 0, nil
		}
		copies = o.atOnce()
	}
	pod := &v1.Pod{}
	pod.Annotations = of.Metadata.Annotations
	if len(of.Spec) == 0 {
		return nil, 0, errors.New("spec is missing")
	}
	if err := json.Unmarshal(of.Spec, &pod.Spec); err != nil {
		return nil, 0, fmt.Errorf("spec: %w", err)
	}
	for _, containers := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			requestLimits(&containers[i].Resources)
		}
	}
	return pod, copies, nil
}

// requestLimits does what the API server does: a limit without a request is one.
func requestLimits(r *v1.ResourceRequirements) {
	for name, limit := range r.Limits {
		if _, ok := r.Requests[name]; ok {
			continue
		}
		if r.Requests == nil {
			r.Requests = v1.ResourceList{}
		}
		r.Requests[name] = limit
	}
}
