// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/spotbench/spotbench/pkg/manifest/policy"
)

const good = `{name: a, image: "r:5000/a:v1", resources: {requests: {cpu: 1, memory: 1Gi}, limits: {memory: 1Gi}}, readinessProbe: {}, livenessProbe: {}}`

func TestWhatEveryWorkloadMustHave(t *testing.T) {
	deployment := func(pod string) string {
		return "{apiVersion: apps/v1, kind: Deployment, spec: {template: {spec: " + pod + "}}}"
	}
	container := func(c string) string { return deployment("{serviceAccountName: a, containers: [" + c + "]}") }
	const at = "spec.template.spec.containers[0]."
	for name, test := range map[string]struct {
		object string
		fields []string
	}{
		"a workload with everything has no finding":                   {container(good), nil},
		"the default ServiceAccount is found, named or not":           {deployment("{serviceAccountName: default, containers: [" + good + "]}"), []string{"spec.template.spec.serviceAccountName"}},
		"no ServiceAccount is the default one":                        {deployment("{containers: [" + good + "]}"), []string{"spec.template.spec.serviceAccountName"}},
		"latest is found":                                             {container(`{image: "a:latest", resources: {limits: {cpu: 1, memory: 1Gi}}, readinessProbe: {}, livenessProbe: {}}`), []string{at + "image"}},
		"no tag is latest, and a registry's port is no tag":           {container(`{image: "r:5000/a", resources: {limits: {cpu: 1, memory: 1Gi}}, readinessProbe: {}, livenessProbe: {}}`), []string{at + "image"}},
		"a digest needs no tag":                                       {container(`{image: "a@sha256:00", resources: {limits: {cpu: 1, memory: 1Gi}}, readinessProbe: {}, livenessProbe: {}}`), nil},
		"missing probes are found one by one":                         {container(`{image: "a:1", resources: {limits: {cpu: 1, memory: 1Gi}}}`), []string{at + "readinessProbe", at + "livenessProbe"}},
		"a request does not bound memory":                             {container(`{image: "a:1", resources: {requests: {cpu: 1, memory: 1Gi}}, readinessProbe: {}, livenessProbe: {}}`), []string{at + "resources.limits.memory"}},
		"a limit of memory requests it, but no CPU":                   {container(`{image: "a:1", resources: {limits: {memory: 1Gi}}, readinessProbe: {}, livenessProbe: {}}`), []string{at + "resources.requests.cpu"}},
		"init containers need bounds and no probes":                   {deployment(`{serviceAccountName: a, initContainers: [{image: "a:1"}], containers: [` + good + `]}`), []string{"spec.template.spec.initContainers[0].resources.limits.memory", "spec.template.spec.initContainers[0].resources.requests.memory", "spec.template.spec.initContainers[0].resources.requests.cpu"}},
		"a Job ends by itself and needs no probes":                    {`{apiVersion: batch/v1, kind: Job, spec: {template: {spec: {serviceAccountName: a, containers: [{image: "a:1", resources: {limits: {cpu: 1, memory: 1Gi}}}]}}}}`, nil},
		"a CronJob's pod is found":                                    {`{apiVersion: batch/v1, kind: CronJob, spec: {jobTemplate: {spec: {template: {spec: {containers: []}}}}}}`, []string{"spec.jobTemplate.spec.template.spec.serviceAccountName"}},
		"a workflow's templates are held to it":                       {`{apiVersion: argoproj.io/v1alpha1, kind: WorkflowTemplate, spec: {serviceAccountName: a, templates: [{steps: []}, {container: {image: a, resources: {limits: {cpu: 1, memory: 1Gi}}}}]}}`, []string{"spec.templates[1].container.image"}},
		"a workflow that refers to a template has the template's":     {`{apiVersion: argoproj.io/v1alpha1, kind: CronWorkflow, spec: {workflowSpec: {workflowTemplateRef: {name: a}}}}`, nil},
		"objects without pods have no rules":                          {`{apiVersion: v1, kind: Service, spec: {}}`, nil},
		"another group's Deployment is not ours to understand":        {`{apiVersion: example.com/v1, kind: Deployment, spec: {}}`, nil},
		"a container that is no object is found wanting, not a crash": {container(`7`), []string{at + "image", at + "resources.limits.memory", at + "resources.requests.memory", at + "resources.requests.cpu", at + "readinessProbe", at + "livenessProbe"}},
	} {
		t.Run(name, func(t *testing.T) {
			var o unstructured.Unstructured
			if err := yaml.Unmarshal([]byte(test.object), &o.Object); err != nil {
				t.Fatal(err)
			}
			var fields []string
			for _, f := range policy.Check(&o) {
				fields = append(fields, f.Field)
				if f.Problem == "" || f.Fix == "" {
					t.Errorf("%s has no problem or no fix: %+v", f.Field, f)
				}
			}
			if diff := cmp.Diff(test.fields, fields); diff != "" {
				t.Errorf("fields (-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzCheckNeverPanics(f *testing.F) {
	f.Add(fmt.Sprintf("{apiVersion: apps/v1, kind: Deployment, spec: {template: {spec: {containers: [%s]}}}}", good))
	f.Add(`{apiVersion: argoproj.io/v1alpha1, kind: CronWorkflow, spec: {workflowSpec: {templates: [{script: {image: "@"}}]}}}`)
	f.Fuzz(func(t *testing.T, text string) {
		var object map[string]any
		if yaml.Unmarshal([]byte(text), &object) != nil || object == nil {
			return // not what a renderer gives
		}
		policy.Check(&unstructured.Unstructured{Object: object})
	})
}
