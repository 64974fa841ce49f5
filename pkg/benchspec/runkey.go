// SPDX-License-Identifier: Apache-2.0

package benchspec

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"
)

// Labels and annotations that Job and Argo Workflows controllers set on their
// pods.
const (
	labelJobUID             = "batch.kubernetes.io/controller-uid"
	labelJobName            = "batch.kubernetes.io/job-name"
	annotationJobIndex      = "batch.kubernetes.io/job-completion-index"
	labelWorkflow           = "workflows.argoproj.io/workflow"
	annotationWorkflowNode  = "workflows.argoproj.io/node-name"
	shortUID                = 8
	longestKeyPart          = 128
	shortHash               = 8
	unusableInRunKeyPattern = `[^a-z0-9._-]+`
)

var (
	unusableInRunKey = regexp.MustCompile(unusableInRunKeyPattern)
	// retryAttempt is what Argo appends to a step's name for each attempt.
	retryAttempt = regexp.MustCompile(`\([0-9]+\)$`)
)

// RunKey names the run that a pod is one stretch of, "NAMESPACE/NAME". It is the
// same for every pod that continues the run (a Job's next pod after an eviction,
// the next attempt of a workflow's step) and differs between runs: two Jobs of
// one name, one after the other, are two runs.
//
// The name comes from the annotation run if the pod has it; else from its Job
// (name, first eight of the UID, completion index if indexed); else from its
// workflow step; else it is the pod's own. The namespace always leads, so that
// nothing a pod says can name a run of another namespace. The key's characters
// are a-z, 0-9, '.', '_', '-' and the one '/'.
func RunKey(namespace string, labels, annotations map[string]string, podName string) string {
	return keyPart(namespace) + "/" + runName(labels, annotations, podName)
}

func runName(labels, annotations map[string]string, podName string) string {
	if run := annotations[AnnotationRun]; run != "" {
		return keyPart(run)
	}
	if uid := labels[labelJobUID]; uid != "" {
		name := labels[labelJobName]
		if name == "" {
			name = "job"
		}
		key := name + "-" + uid[:min(len(uid), shortUID)]
		if index := annotations[annotationJobIndex]; index != "" {
			key += "-" + index
		}
		return keyPart(key)
	}
	if workflow, step := labels[labelWorkflow], annotations[annotationWorkflowNode]; workflow != "" && step != "" {
		step = retryAttempt.ReplaceAllString(step, "")
		// A step's name begins with its workflow's, "wf-x7k2[0].measure", and is all of
		// it for a workflow of one pod.
		if !strings.HasPrefix(step, workflow) {
			step = workflow + "-" + step
		}
		return keyPart(step)
	}
	return keyPart(podName)
}

// keyPart makes a name fit for keys, paths and URLs. Where characters had to go,
// a hash of the whole name keeps different names different.
func keyPart(name string) string {
	clean := strings.Trim(unusableInRunKey.ReplaceAllString(strings.ToLower(name), "-"), "-._")
	if clean == name && len(clean) <= longestKeyPart && clean != "" {
		return clean
	}
	sum := sha256.Sum256([]byte(name))
	hash := hex.EncodeToString(sum[:])[:shortHash]
	if clean = clean[:min(len(clean), longestKeyPart-shortHash-1)]; clean == "" {
		return hash
	}
	return clean + "-" + hash
}
