// SPDX-License-Identifier: Apache-2.0

// Package policy holds workloads to what every one of ours must have: bounded memory,
// probes, an image that is one, an identity of its own.
package policy

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Finding is a rule that an object breaks.
type Finding struct {
	// Field of the object, as a path.
	Field string
	// Problem with it, and Fix.
	Problem, Fix string
}

// podAt is where a kind has its pod, and whether the pod serves until it is stopped.
var podAt = map[string]struct {
	path   []string
	serves bool
}{
	"Pod":         {path: []string{"spec"}},
	"Deployment":  {path: []string{"spec", "template", "spec"}, serves: true},
	"StatefulSet": {path: []string{"spec", "template", "spec"}, serves: true},
	"DaemonSet":   {path: []string{"spec", "template", "spec"}, serves: true},
	"Job":         {path: []string{"spec", "template", "spec"}},
	"CronJob":     {path: []string{"spec", "jobTemplate", "spec", "template", "spec"}},
}

// workflowAt is where a kind of Argo Workflows has its workflow.
var workflowAt = map[string][]string{
	"Workflow":                {"spec"},
	"WorkflowTemplate":        {"spec"},
	"ClusterWorkflowTemplate": {"spec"},
	"CronWorkflow":            {"spec", "workflowSpec"},
}

// bounds are the resources that every container sets. CPU needs no limit: it is shared
// by weight, and throttling a program that answers probes or a notice does harm.
var bounds = []struct{ list, resource, without string }{
	{"limits", "memory", "not set: one leak takes the node's memory from its neighbours"},
	{"requests", "memory", "not set: the node is filled as if it needed nothing"},
	{"requests", "cpu", "not set: the node is filled as if it needed nothing"},
}

// Check finds what is wrong with an object. Kinds without pods have no rules.
func Check(o *unstructured.Unstructured) []Finding {
	var c check
	group := o.GroupVersionKind().Group
	if at, known := podAt[o.GetKind()]; known && (group == "" || group == "apps" || group == "batch") {
		pod := mapAt(o, at.path)
		field := strings.Join(at.path, ".")
		c.account(field, pod)
		c.containers(field, pod, at.serves)
	}
	if path, known := workflowAt[o.GetKind()]; known && group == "argoproj.io" {
		workflow := mapAt(o, path)
		field := strings.Join(path, ".")
		if _, references := workflow["workflowTemplateRef"]; !references {
			c.account(field, workflow)
		}
		for i, template := range list(workflow, "templates") {
			at := fmt.Sprintf("%s.templates[%d]", field, i)
			c.containers(at, template, false)
			for _, key := range []string{"container", "script"} {
				if one, ok := template[key].(map[string]any); ok {
					c.container(at+"."+key, one)
				}
			}
		}
	}
	return c.findings
}

type check struct{ findings []Finding }

func (c *check) add(field, problem, fix string) {
	c.findings = append(c.findings, Finding{Field: field, Problem: problem, Fix: fix})
}

func (c *check) account(field string, pod map[string]any) {
	if name, _ := pod["serviceAccountName"].(string); name == "" || name == "default" {
		c.add(field+".serviceAccountName", "the pod runs as the namespace's default ServiceAccount, so rights given to it are given to every pod",
			"make a ServiceAccount for this workload and name it here")
	}
}

func (c *check) containers(field string, pod map[string]any, serves bool) {
	for _, key := range []string{"initContainers", "containers", "sidecars"} {
		for i, container := range list(pod, key) {
			at := fmt.Sprintf("%s.%s[%d]", field, key, i)
			c.container(at, container)
			if !serves || key != "containers" {
				continue
			}
			for _, probe := range []string{"readinessProbe", "livenessProbe"} {
				if _, ok := container[probe].(map[string]any); !ok {
					c.add(at+"."+probe, "there is none: nothing notices when it no longer answers", "add one that asks the workload itself, for example an httpGet")
				}
			}
		}
	}
}

func (c *check) container(field string, container map[string]any) {
	image, _ := container["image"].(string)
	switch tag := tagOf(image); {
	case image == "":
		c.add(field+".image", "no image", "name one, with its tag or digest")
	case tag == "":
		c.add(field+".image", image+" has neither tag nor digest, which means latest", "pin it, for example "+image+":v1.2.3")
	case tag == "latest":
		c.add(field+".image", image+" changes under the same name", "pin a version or a digest")
	}
	for _, b := range bounds {
		if !sets(container, b.list, b.resource) {
			c.add(fmt.Sprintf("%s.resources.%s.%s", field, b.list, b.resource), b.without, "set it to what the workload was measured to need")
		}
	}
}

// sets tells whether a resource is set. What is limited and not requested is requested
// up to its limit.
func sets(container map[string]any, list, resource string) bool {
	for _, l := range slices.Compact([]string{list, "limits"}) {
		if _, found, _ := unstructured.NestedFieldNoCopy(container, "resources", l, resource); found {
			return true
		}
	}
	return false
}

// tagOf is an image's tag or digest. A colon before the last slash is a port.
func tagOf(image string) string {
	if _, digest, ok := strings.Cut(image, "@"); ok {
		return digest
	}
	_, tag, _ := strings.Cut(image[strings.LastIndex(image, "/")+1:], ":")
	return tag
}

func mapAt(o *unstructured.Unstructured, path []string) map[string]any {
	found, _, _ := unstructured.NestedFieldNoCopy(o.Object, path...)
	m, _ := found.(map[string]any)
	return m
}

func list(in map[string]any, key string) []map[string]any {
	items, _ := in[key].([]any)
	var maps []map[string]any
	for _, item := range items {
		m, _ := item.(map[string]any)
		maps = append(maps, m)
	}
	return maps
}
