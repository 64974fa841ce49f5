// SPDX-License-Identifier: Apache-2.0

package manifests_test

import (
	"fmt"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
)

// Who may do what, as `kubectl auth can-i VERB RESOURCE -n NAMESPACE --as ACCOUNT` is
// asked. A resource is resource.group/subresource, or a path of the API server; the
// namespace "" is all of them.
func TestEveryAccountMayDoItsWorkAndNothingElse(t *testing.T) {
	for account, may := range map[string]map[string][]string{
		// The API's own rights over models and results are its writers' list and tokens
		// (docs/catalog.md); of the cluster it asks only whose token this is.
		"model-catalog/catalog-api": {
			"yes": {"create tokenreviews.authentication.k8s.io"},
			"no":  {"get secrets model-catalog", "list pods", "list pods model-catalog", "create subjectaccessreviews.authorization.k8s.io", "patch deployments.apps model-catalog", "get /metrics"},
		},
		"model-catalog/importer":  {"no": {"create tokenreviews.authentication.k8s.io", "get secrets model-catalog"}},
		"gpu-workloads/benchmark": {"no": {"get pods gpu-workloads", "get secrets gpu-workloads", "create pods gpu-workloads", "create tokenreviews.authentication.k8s.io", "list nodes"}},
		"gpu-workloads/benchmark-workflow": {
			"yes": {"create workflowtaskresults.argoproj.io gpu-workloads", "patch workflowtaskresults.argoproj.io gpu-workloads"},
			"no":  {"create workflowtaskresults.argoproj.io model-catalog", "create workflows.argoproj.io gpu-workloads", "get secrets gpu-workloads", "create pods gpu-workloads", "delete pods gpu-workloads"},
		},
		"spotbench-system/scheduler": {
			"yes": {"list pods", "list nodes", "create pods/binding", "create leases.coordination.k8s.io spotbench-system", "list podgroups.scheduling.x-k8s.io"},
			"no":  {"get secrets", "get secrets spotbench-system", "create pods gpu-workloads", "delete nodes", "create clusterrolebindings.rbac.authorization.k8s.io"},
		},
		// That it may write to its own node only is another policy's (own-node-policy.yaml).
		"spotbench-system/node-agent": {
			"yes": {"list pods", "create pods/eviction gpu-workloads", "patch nodes", "patch nodes/status", "patch workflows.argoproj.io gpu-workloads"},
			"no":  {"get secrets", "get secrets spotbench-system", "create pods gpu-workloads", "delete nodes", "create pods/exec gpu-workloads", "list nodes"},
		},
		"monitoring/prometheus": {
			"yes": {"get /metrics", "get nodes/metrics", "list pods", "list pods model-catalog", "watch endpointslices.discovery.k8s.io", "list services gpu-workloads"},
			"no":  {"get secrets", "get secrets monitoring", "delete pods gpu-workloads", "create pods/exec model-catalog", "get nodes/proxy", "get /debug/pprof"},
		},
		"argocd/argocd-deployer": {
			"yes": {"patch deployments.apps model-catalog", "create statefulsets.apps data-storage", "delete jobs.batch gpu-workloads", "update cronworkflows.argoproj.io gpu-workloads", "get pods/log monitoring"},
			"no": {"patch deployments.apps kube-system", "patch deployments.apps argocd", "get secrets model-catalog", "create rolebindings.rbac.authorization.k8s.io model-catalog",
				"create clusterroles.rbac.authorization.k8s.io", "create pods gpu-workloads", "create pods/exec model-catalog", "delete namespaces"},
		},
	} {
		namespace, name, _ := strings.Cut(account, "/")
		for answer, questions := range may {
			for _, question := range questions {
				t.Run(fmt.Sprintf("%s may %s: %s", account, question, answer), func(t *testing.T) {
					review := ask(question)
					review.Spec.User = "system:serviceaccount:" + namespace + ":" + name
					review.Spec.Groups = []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"}
					if err := admin.Create(t.Context(), review); err != nil {
						t.Fatal(err)
					}
					if got := review.Status.Allowed; got != (answer == "yes") {
						t.Errorf("allowed %v, want %s: %s", got, answer, review.Status.Reason)
					}
				})
			}
		}
	}
}

// ask is the question as the API server is asked it.
func ask(question string) *authorizationv1.SubjectAccessReview {
	words := strings.Fields(question + " ")
	review := new(authorizationv1.SubjectAccessReview)
	if strings.HasPrefix(words[1], "/") {
		review.Spec.NonResourceAttributes = &authorizationv1.NonResourceAttributes{Verb: words[0], Path: words[1]}
		return review
	}
	resource, subresource, _ := strings.Cut(words[1], "/")
	resource, group, _ := strings.Cut(resource, ".")
	review.Spec.ResourceAttributes = &authorizationv1.ResourceAttributes{Verb: words[0], Resource: resource, Group: group, Subresource: subresource}
	if len(words) > 2 {
		review.Spec.ResourceAttributes.Namespace = words[2]
	}
	return review
}
