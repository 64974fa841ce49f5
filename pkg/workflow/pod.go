// SPDX-License-Identifier: Apache-2.0

package workflow

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/spotbench/spotbench/pkg/benchspec"
)

// What Argo's controller writes on its pods.
const (
	labelWorkflow      = "workflows.argoproj.io/workflow"
	annotationNodeName = "workflows.argoproj.io/node-name"
	initContainer      = "init"
	envTemplate        = "ARGO_TEMPLATE"
)

// attempt is what Argo appends to a step's name for each attempt of a step with a
// retryStrategy, and for no other.
var attempt = regexp.MustCompile(`\(([0-9]+)\)$`)

// Retry is a retryStrategy, as far as it decides whether a deleted pod is retried.
type Retry struct {
	Limit      *intstr.IntOrString `json:"limit"`
	Policy     string              `json:"retryPolicy"`
	Expression string              `json:"expression"`
}

// Pod is an interrupted pod of a workflow.
type Pod struct {
	Name string
	// Run is the name of its run, which another pod may continue.
	Run string
	// Attempt counts from 0; -1 says that the step is not retried.
	Attempt int
	// Retry is its template's strategy; nil if the pod does not say. Then the
	// workflow's own counts.
	Retry *Retry
}

// Of is the name of the workflow that a pod belongs to; "" if it belongs to none.
func Of(pod *corev1.Pod) string { return pod.Labels[labelWorkflow] }

// PodOf reads what Argo's controller says of a step on its pod.
func PodOf(pod *corev1.Pod) Pod {
	p := Pod{Name: pod.Name, Run: benchspec.RunKey(pod.Namespace, pod.Labels, pod.Annotations, pod.Name), Attempt: -1}
	if m := attempt.FindStringSubmatch(pod.Annotations[annotationNodeName]); m != nil {
		if n, err := strconv.Atoi(m[1]); err == nil {
			p.Attempt = n
		}
	}
	for _, c := range pod.Spec.InitContainers {
		if c.Name != initContainer {
			continue
		}
		for _, e := range c.Env {
			var template struct {
				Retry *Retry `json:"retryStrategy"`
			}
			// A template too large for a variable is elsewhere, and says nothing here.
			if e.Name == envTemplate && json.Unmarshal([]byte(e.Value), &template) == nil {
				p.Retry = template.Retry
			}
		}
	}
	return p
}

// problem says why Argo may not start the step again once its pod is deleted, and
// what to change; "" if it will. fallback is the workflow's own strategy.
func (p Pod) problem(fallback *Retry) string {
	if p.Attempt < 0 {
		return `its template has no retryStrategy, so the workflow fails when the pod is deleted. Add retryStrategy: {limit: "10", retryPolicy: Always}`
	}
	strategy := p.Retry
	if strategy == nil {
		strategy = fallback
	}
	if strategy == nil {
		return ""
	}
	// Argo's default is OnFailure, and Always beside an expression. A deleted pod is an
	// Error to it, one that it saw end with exit code 75 a Failure.
	if policy := strategy.Policy; policy != "Always" && (policy != "" || strategy.Expression == "") {
		if policy == "" {
			policy = "OnFailure, Argo's default"
		}
		return fmt.Sprintf("its retryPolicy is %s, which does not cover every way in which an interrupted pod ends. Set retryPolicy: Always", policy)
	}
	if strategy.Limit != nil {
		if limit, err := strconv.Atoi(strategy.Limit.String()); err == nil && p.Attempt >= limit {
			return fmt.Sprintf("it is the last attempt that its retryStrategy allows (limit %d). Raise the limit", limit)
		}
	}
	return ""
}
