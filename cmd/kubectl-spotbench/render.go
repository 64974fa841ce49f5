// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/json"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"sigs.k8s.io/yaml"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/gpu"
)

func renderCommand(streams genericiooptions.IOStreams) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "render -f FILE",
		Short: "Add what autoscalers must see: node affinity for the GPU models, and the scheduler's name",
		Long: `Autoscalers read node affinity, not annotations. For each pod or pod template with an
annotation under spotbench.dev/, render sets schedulerName and adds to its required
node affinity the labels of nodes with the models of spotbench.dev/gpu-model and not of
the other capacity than spotbench.dev/capacity says. For one
that asks for GPUs by resource claims, it adds a selector of these models to the
ResourceClaims and ResourceClaimTemplates of the same documents instead.
Everything else is printed as it was; rendering again changes nothing.`,
		Example: `  kubectl spotbench render -f pods.yaml | kubectl apply -f -
  cat pods.yaml | kubectl spotbench render -f -`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			in := streams.In
			switch file {
			case "":
				return errors.New("--filename is missing; give a file of pods or jobs, or - for standard input")
			case "-":
			default:
				f, err := os.Open(file)
				if err != nil {
					return fmt.Errorf("--filename: %w", err)
				}
				defer f.Close()
				in = f
			}
			return render(in, streams.Out)
		},
	}
	cmd.Flags().StringVarP(&file, "filename", "f", "", "file with one or more documents, - for standard input")
	return cmd
}

type object = map[string]any

// render writes nothing unless every document is right.
func render(in io.Reader, out io.Writer) error {
	reader := utilyaml.NewYAMLReader(bufio.NewReader(in))
	var docs []object
	var places []int // of docs among the documents
	named := claimModels{}
	for n := 1; ; n++ {
		text, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		data, err := yaml.YAMLToJSON(text)
		if err != nil {
			return fmt.Errorf("document %d: %w", n, err)
		}
		var doc object
		if err := json.Unmarshal(data, &doc); err != nil {
			return fmt.Errorf("document %d is not a Kubernetes object: %w", n, err)
		}
		if doc == nil {
			continue
		}
		if err := renderObject(doc, named); err != nil {
			return fmt.Errorf("document %d: %w", n, err)
		}
		docs, places = append(docs, doc), append(places, n)
	}
	var rendered []string
	for i, doc := range docs {
		if err := named.render(doc); err != nil {
			return fmt.Errorf("document %d: %w", places[i], err)
		}
		text, err := yaml.Marshal(doc)
		if err != nil {
			return err
		}
		rendered = append(rendered, string(text))
	}
	_, err := io.WriteString(out, strings.Join(rendered, "---\n"))
	return err
}

func renderObject(doc object, named claimModels) error {
	if items, isList := doc["items"].([]any); isList {
		for i, item := range items {
			if o, ok := item.(object); ok {
				if err := renderObject(o, named); err != nil {
					return fmt.Errorf("items[%d]: %w", i, err)
				}
			}
		}
		return nil
	}
	pod := doc
	if doc["kind"] != "Pod" {
		spec, _ := doc["spec"].(object)
		if job, ok := spec["jobTemplate"].(object); ok {
			spec, _ = job["spec"].(object)
		}
		pod, _ = spec["template"].(object)
	}
	if err := renderPod(pod, named); err != nil {
		metadata, _ := doc["metadata"].(object)
		return fmt.Errorf("%v %v: %w", doc["kind"], metadata["name"], err)
	}
	return nil
}

func renderPod(pod object, named claimModels) error {
	metadata, _ := pod["metadata"].(object)
	found, _ := metadata["annotations"].(object)
	annotations := map[string]string{}
	for name, value := range found {
		if !strings.HasPrefix(name, benchspec.Prefix) {
			continue
		}
		text, isString := value.(string)
		if !isString {
			return fmt.Errorf("annotation %s has the value %v, which is no string; put it in quotes", name, value)
		}
		annotations[name] = text
	}
	spec, _ := pod["spec"].(object)
	if len(annotations) == 0 || spec == nil {
		return nil
	}
	wanted, err := benchspec.Parse(annotations)
	if err != nil {
		return err
	}
	switch name := spec["schedulerName"]; name {
	case nil, "", "default-scheduler", benchspec.SchedulerName:
		spec["schedulerName"] = benchspec.SchedulerName
	default:
		return fmt.Errorf("spec.schedulerName is %q, which does not read the annotations; leave it out or write %q", name, benchspec.SchedulerName)
	}
	capacity := requirements(gpu.CapacitySelector(string(wanted.Capacity)))
	ways := [][]any{capacity}
	claims, _ := spec["resourceClaims"].([]any)
	switch {
	case len(wanted.GPUModels) == 0:
	case len(claims) > 0:
		if err := named.add(claims, wanted.GPUModels); err != nil {
			return err
		}
	default:
		ways = nil
		for _, model := range wanted.GPUModels {
			for _, selector := range gpu.Selectors(model) {
				ways = append(ways, append(requirements(selector), capacity...))
			}
		}
	}
	if len(ways) == 1 && len(ways[0]) == 0 {
		return nil
	}
	required := child(child(child(spec, "affinity"), "nodeAffinity"), "requiredDuringSchedulingIgnoredDuringExecution")
	terms, _ := required["nodeSelectorTerms"].([]any)
	required["nodeSelectorTerms"] = narrow(terms, ways)
	return nil
}

// requirements as they are in a manifest.
func requirements(list []gpu.Requirement) []any {
	var out []any
	for _, r := range list {
		values := make([]any, len(r.Values))
		for i, v := range r.Values {
			values[i] = v
		}
		out = append(out, object{"key": r.Key, "operator": r.Operator, "values": values})
	}
	return out
}

func child(parent object, name string) object {
	c, ok := parent[name].(object)
	if !ok {
		c = object{}
		parent[name] = c
	}
	return c
}

// narrow keeps what the terms ask for and asks for one of the ways besides. Terms
// are alternatives, so each is joined with each way; one that has a way is done.
func narrow(terms []any, ways [][]any) []any {
	if len(terms) == 0 {
		terms = []any{object{}}
	}
	var out []any
	for _, t := range terms {
		term, _ := t.(object)
		has, _ := term["matchExpressions"].([]any)
		if hasOneWay(has, ways) {
			out = append(out, term)
			continue
		}
		for _, way := range ways {
			joined := object{"matchExpressions": append(append([]any{}, has...), way...)}
			if fields, ok := term["matchFields"]; ok {
				joined["matchFields"] = fields
			}
			out = append(out, joined)
		}
	}
	return out
}

func hasOneWay(has []any, ways [][]any) bool {
	for _, way := range ways {
		n := 0
		for _, r := range way {
			for _, h := range has {
				if reflect.DeepEqual(r, h) {
					n++
					break
				}
			}
		}
		if n == len(way) {
			return true
		}
	}
	return false
}
