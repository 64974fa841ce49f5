// SPDX-License-Identifier: Apache-2.0

// Package admission renders the contract of package benchspec as
// ValidatingAdmissionPolicies, so that the API server itself rejects a malformed
// annotation, without a webhook that could be down.
package admission

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/spotbench/spotbench/pkg/benchspec"
)

// SchedulerUser is the user whose writing of the annotation placement is let
// through.
const SchedulerUser = "system:serviceaccount:spotbench-system:scheduler"

// shape is where objects of some resources keep the annotations of a pod. There
// is a policy per shape, since an expression is type-checked against every
// resource its policy matches.
type shape struct {
	name string
	// path leads to the pod's metadata; each step may be absent.
	path      []string
	resources map[string][]string // by API group
}

var shapes = []shape{
	// An update of a pod's status keeps what it says of the pod's annotations.
	{"pods", []string{"metadata"}, map[string][]string{"": {"pods", "pods/status"}}},
	// A binding's annotations become its pod's.
	{"bindings", []string{"metadata"}, map[string][]string{"": {"bindings", "pods/binding"}}},
	{"templates", []string{"spec", "template", "metadata"}, map[string][]string{
		"apps":  {"daemonsets", "deployments", "replicasets", "statefulsets"},
		"batch": {"jobs"},
	}},
	{"cronjobs", []string{"spec", "jobTemplate", "spec", "template", "metadata"}, map[string][]string{"batch": {"cronjobs"}}},
}

// Policies are the admission policies, one per shape of object.
func Policies() []admissionv1.ValidatingAdmissionPolicy {
	var out []admissionv1.ValidatingAdmissionPolicy
	for _, s := range shapes {
		out = append(out, s.policy())
	}
	return out
}

// Bindings put the policies in force in every namespace.
func Bindings() []admissionv1.ValidatingAdmissionPolicyBinding {
	var out []admissionv1.ValidatingAdmissionPolicyBinding
	for _, s := range shapes {
		out = append(out, admissionv1.ValidatingAdmissionPolicyBinding{
			TypeMeta:   metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "ValidatingAdmissionPolicyBinding"},
			ObjectMeta: s.meta(),
			Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
				PolicyName:        s.meta().Name,
				ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
			},
		})
	}
	return out
}

// generated begins the files that are made from this package.
const generated = "# SPDX-License-Identifier: Apache-2.0\n# Generated from pkg/benchspec by \"go generate ./pkg/benchspec\". Do not edit.\n"

// Manifest is the YAML of all policies and bindings.
func Manifest() ([]byte, error) {
	b := bytes.NewBufferString(generated)
	policies, bindings := Policies(), Bindings()
	for i := range policies {
		for _, object := range []any{policies[i], bindings[i]} {
			text, err := yaml.Marshal(object)
			if err != nil {
				return nil, fmt.Errorf("rendering the admission policies: %w", err)
			}
			b.WriteString("---\n")
			// The empty status that the type always renders is the API server's to write.
			b.Write(bytes.ReplaceAll(text, []byte("status: {}\n"), nil))
		}
	}
	return b.Bytes(), nil
}

func (s shape) meta() metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name:   "spotbench-annotations-" + s.name,
		Labels: map[string]string{"app.kubernetes.io/name": "spotbench", "app.kubernetes.io/component": "admission"},
	}
}

func (s shape) policy() admissionv1.ValidatingAdmissionPolicy {
	fail := admissionv1.Fail
	return admissionv1.ValidatingAdmissionPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "ValidatingAdmissionPolicy"},
		ObjectMeta: s.meta(),
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			FailurePolicy:    &fail,
			MatchConstraints: s.match(),
			MatchConditions: []admissionv1.MatchCondition{
				// Whoever does not use the contract never depends on these rules.
				{Name: "has-our-annotations", Expression: s.annotations("object") + ".exists(k, k.startsWith(" + strconv.Quote(benchspec.Prefix) + "))"},
				// An object from before the policy can still be updated and deleted.
				{Name: "annotations-changed", Expression: "oldObject == null || " + s.annotations("object") + " != " + s.annotations("oldObject")},
			},
			Variables:   []admissionv1.Variable{{Name: "annotations", Expression: s.annotations("object")}},
			Validations: s.validations(),
		},
	}
}

func (s shape) match() *admissionv1.MatchResources {
	var rules []admissionv1.NamedRuleWithOperations
	for _, group := range []string{"", "apps", "batch"} {
		if resources := s.resources[group]; len(resources) > 0 {
			rules = append(rules, admissionv1.NamedRuleWithOperations{RuleWithOperations: admissionv1.RuleWithOperations{
				Operations: []admissionv1.OperationType{admissionv1.Create, admissionv1.Update},
				Rule:       admissionv1.Rule{APIGroups: []string{group}, APIVersions: []string{"v1"}, Resources: resources},
			}})
		}
	}
	return &admissionv1.MatchResources{ResourceRules: rules}
}

// annotations is the pod's annotations in an object, an empty map when there are
// none.
func (s shape) annotations(object string) string {
	var present []string
	at := object
	for _, step := range append(append([]string{}, s.path...), "annotations") {
		at += "." + step
		present = append(present, "has("+at+")")
	}
	return "(" + strings.Join(present, " && ") + " ? " + at + " : {})"
}

func (s shape) validations() []admissionv1.Validation {
	var out []admissionv1.Validation
	if s.name == "bindings" {
		return append(out, s.placementIsTheSchedulers())
	}
	for _, r := range benchspec.AdmissionRules() {
		out = append(out, admissionv1.Validation{Expression: r.Expression, MessageExpression: r.MessageExpression, Message: r.Message})
	}
	return append(out, s.placementIsTheSchedulers())
}

// placementIsTheSchedulers keeps prices and reasons that Spotbench acts upon from
// being made up. A template can carry none at all, since its pods would be
// rejected.
func (s shape) placementIsTheSchedulers() admissionv1.Validation {
	name := strconv.Quote(benchspec.AnnotationPlacement)
	expression := "!(" + name + " in variables.annotations)"
	if s.name == "pods" || s.name == "bindings" {
		before := s.annotations("oldObject")
		expression += " || request.userInfo.username == " + strconv.Quote(SchedulerUser) +
			" || (oldObject != null && " + name + " in " + before + " && " + before + "[" + name + "] == variables.annotations[" + name + "])"
	}
	return admissionv1.Validation{
		Expression: expression,
		Message:    "annotation " + benchspec.AnnotationPlacement + " is written by the scheduler alone; remove it",
	}
}
