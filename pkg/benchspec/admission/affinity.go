// SPDX-License-Identifier: Apache-2.0

package admission

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	admissionv1beta1 "k8s.io/api/admissionregistration/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/gpu"
)

// Placeholders in the tables of selectors, of characters that no name of a model has.
const (
	anyCard    = "#"
	anyProfile = "@"
	slice      = "-MIG-"
)

// The language that policies may use in 1.34 flattens no list of lists: elements of two
// lists are counted through by one number instead. More alternatives than numbers are
// cut off, the last ones, which are those least preferred.
const (
	// mostSelectors is the most that a model has.
	mostSelectors = 4
	mostNumbers   = 256
)

func numbers() string {
	var texts []string
	for i := range mostNumbers {
		texts = append(texts, strconv.Itoa(i))
	}
	return "[" + strings.Join(texts, ", ") + "]"
}

// affinityName is the name of the policy and of its binding.
const affinityName = "spotbench-affinity"

// AffinityPolicy adds to a pod, as it is created, the node affinity that says to
// autoscalers what its annotations say to the scheduler: the same that
// `kubectl spotbench render` writes. It is a policy of its own because the kind is off
// by default in Kubernetes 1.34.
func AffinityPolicy() admissionv1beta1.MutatingAdmissionPolicy {
	fail := admissionv1beta1.Fail
	annotations := shapes[0].annotations("object")
	model, capacity := strconv.Quote(benchspec.AnnotationGPUModel), strconv.Quote(benchspec.AnnotationCapacity)
	var wanted []string
	for _, c := range []benchspec.Capacity{benchspec.CapacitySpot, benchspec.CapacityOnDemand} {
		wanted = append(wanted, strconv.Quote(string(c)))
	}
	return admissionv1beta1.MutatingAdmissionPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: admissionv1beta1.SchemeGroupVersion.String(), Kind: "MutatingAdmissionPolicy"},
		ObjectMeta: affinityMeta(),
		Spec: admissionv1beta1.MutatingAdmissionPolicySpec{
			FailurePolicy: &fail,
			// Adding what is there changes nothing.
			ReinvocationPolicy: admissionv1.IfNeededReinvocationPolicy,
			MatchConstraints: &admissionv1beta1.MatchResources{ResourceRules: []admissionv1beta1.NamedRuleWithOperations{{
				RuleWithOperations: admissionv1beta1.RuleWithOperations{
					Operations: []admissionv1beta1.OperationType{admissionv1beta1.Create},
					Rule:       admissionv1beta1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
				},
			}}},
			MatchConditions: []admissionv1beta1.MatchCondition{
				{Name: "is-scheduled-by-us", Expression: "object.spec.schedulerName == " + strconv.Quote(benchspec.SchedulerName)},
				{Name: "names-models-or-capacity", Expression: annotations + ".exists(k, k in [" + model + ", " + capacity + "])"},
			},
			Variables: []admissionv1beta1.Variable{
				{Name: "annotations", Expression: annotations},
				{Name: "numbers", Expression: numbers()},
				{Name: "known", Expression: knownSpellings()},
				{Name: "cards", Expression: cardSelectors()},
				{Name: "slices", Expression: sliceSelectors()},
				{Name: "names", Expression: model + " in variables.annotations && !(has(object.spec.resourceClaims) && size(object.spec.resourceClaims) > 0)" +
					" ? variables.annotations[" + model + `].replace("|", ",").split(",").map(n, n.trim()) : []`},
				{Name: "capacity", Expression: capacity + " in variables.annotations && variables.annotations[" + capacity + "] in [" + strings.Join(wanted, ", ") + "]" +
					" ? " + capacitySelectors() + "[variables.annotations[" + capacity + "]] : []"},
				{Name: "perName", Expression: selectorsOfNames()},
				{Name: "selectors", Expression: fmt.Sprintf("variables.numbers.filter(i, i / %[1]d < size(variables.perName) && i %% %[1]d < size(variables.perName[i / %[1]d])).map(i, variables.perName[i / %[1]d][i %% %[1]d])", mostSelectors)},
				{Name: "ways", Expression: `(size(variables.names) == 0 ? [variables.capacity] : variables.selectors.map(s, s + variables.capacity))` +
					`.map(w, w.map(r, {"key": dyn(r.key[0]), "operator": dyn(r.operator[0]), "values": dyn(r.values)}))`},
				{Name: "terms", Expression: `has(object.spec.affinity) && has(object.spec.affinity.nodeAffinity) && ` + required("has(", ")") + ` && size(` + required("", "") +
					`.nodeSelectorTerms) > 0 ? ` + required("", "") + `.nodeSelectorTerms : [{}]`},
			},
			Mutations: []admissionv1beta1.Mutation{{
				PatchType: admissionv1beta1.PatchTypeJSONPatch,
				JSONPatch: &admissionv1beta1.JSONPatch{Expression: affinityPatch()},
			}},
		},
	}
}

// AffinityBinding puts the policy in force in every namespace.
func AffinityBinding() admissionv1beta1.MutatingAdmissionPolicyBinding {
	return admissionv1beta1.MutatingAdmissionPolicyBinding{
		TypeMeta:   metav1.TypeMeta{APIVersion: admissionv1beta1.SchemeGroupVersion.String(), Kind: "MutatingAdmissionPolicyBinding"},
		ObjectMeta: affinityMeta(),
		Spec:       admissionv1beta1.MutatingAdmissionPolicyBindingSpec{PolicyName: affinityName},
	}
}

// AffinityManifest is the YAML of the policy and its binding.
func AffinityManifest() ([]byte, error) {
	b := bytes.NewBufferString(generated)
	for _, object := range []any{AffinityPolicy(), AffinityBinding()} {
		text, err := yaml.Marshal(object)
		if err != nil {
			return nil, fmt.Errorf("rendering the affinity policy: %w", err)
		}
		b.WriteString("---\n")
		b.Write(text)
	}
	return b.Bytes(), nil
}

func affinityMeta() metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: affinityName, Labels: shapes[0].meta().Labels}
}

// required is the pod's required node affinity, between two texts.
func required(before, after string) string {
	return before + "object.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution" + after
}

// knownSpellings is a map from every spelling of a known card, in upper case and without
// "NVIDIA-", to its canonical name.
func knownSpellings() string {
	var entries []string
	seen := map[string]bool{}
	for _, m := range gpu.Models() {
		for _, name := range append([]string{m.Name}, m.Aliases...) {
			name = strings.TrimPrefix(strings.ToUpper(name), "NVIDIA-")
			if !seen[name] {
				seen[name] = true
				entries = append(entries, strconv.Quote(name)+": "+strconv.Quote(m.Name))
			}
		}
	}
	return "{" + strings.Join(entries, ", ") + "}"
}

// cardSelectors is a map from a card's canonical name to its selectors, whole, and
// sliceSelectors is one for its slices. Both have an entry for cards that are not known.
func cardSelectors() string {
	entries := []string{strconv.Quote(anyCard) + ": " + selectorsText(gpu.Selectors(anyCard))}
	for _, m := range gpu.Models() {
		entries = append(entries, strconv.Quote(m.Name)+": "+selectorsText(gpu.Selectors(m.Name)))
	}
	return "{" + strings.Join(entries, ", ") + "}"
}

func sliceSelectors() string {
	entries := []string{strconv.Quote(anyCard) + ": " + selectorsText(gpu.Selectors(anyCard+slice+anyProfile))}
	for _, m := range gpu.Models() {
		entries = append(entries, strconv.Quote(m.Name)+": "+selectorsText(gpu.Selectors(m.Name+slice+anyProfile)))
	}
	return "{" + strings.Join(entries, ", ") + "}"
}

func capacitySelectors() string {
	var entries []string
	for _, c := range []benchspec.Capacity{benchspec.CapacitySpot, benchspec.CapacityOnDemand} {
		entries = append(entries, strconv.Quote(string(c))+": "+requirementsText(gpu.CapacitySelector(string(c))))
	}
	return "{" + strings.Join(entries, ", ") + "}"
}

func selectorsText(selectors [][]gpu.Requirement) string {
	texts := make([]string, len(selectors))
	for i, s := range selectors {
		texts[i] = requirementsText(s)
	}
	return "[" + strings.Join(texts, ", ") + "]"
}

// requirementsText is a CEL list. Maps of CEL have values of one type, so all are lists.
func requirementsText(requirements []gpu.Requirement) string {
	texts := make([]string, len(requirements))
	for i, r := range requirements {
		values := make([]string, len(r.Values))
		for j, v := range r.Values {
			values[j] = strconv.Quote(v)
		}
		texts[i] = fmt.Sprintf(`{"key": [%q], "operator": [%q], "values": [%s]}`, r.Key, r.Operator, strings.Join(values, ", "))
	}
	return "[" + strings.Join(texts, ", ") + "]"
}

// selectorsOfNames finds each name's selectors in the tables: by its card, and with its
// slice's profile put in. CEL has no local variables: the list of one element that is
// mapped is one.
func selectorsOfNames() string {
	card := `n.split("` + slice + `")[0]`
	key := card + `.upperAscii().replace("NVIDIA-", "", 1)`
	entry := key + " in variables.known ? variables.known[" + key + `] : "` + anyCard + `"`
	// A name of an unknown card that already begins with the vendor's is not spelt so twice.
	filled := `r.%s.map(v, v.replace("` + anyCard + `", ` + card + `).replace("` + anyProfile + `", size(n.split("` + slice + `")) > 1 ? n.split("` + slice + `")[1] : "")).filter(v, !v.startsWith("NVIDIA-NVIDIA-"))`
	return `variables.names.map(n, (n.contains("` + slice + `") ? variables.slices : variables.cards)[` + entry + `]` +
		`.map(s, s.map(r, {"key": ` + fmt.Sprintf(filled, "key") + `, "operator": r.operator, "values": ` + fmt.Sprintf(filled, "values") + `})))`
}

// affinityPatch replaces the pod's terms, which are alternatives, by each of them joined
// with each way to say what is wanted; one that already has a way stays as it is.
func affinityPatch() string {
	const (
		path  = "/spec/affinity"
		field = path + "/nodeAffinity"
		// The number i stands for a term and a way.
		t   = `variables.terms[i / size(variables.ways)]`
		way = `variables.ways[i % size(variables.ways)]`
		has = `(has(` + t + `.matchExpressions) ? ` + t + `.matchExpressions : [])`
	)
	done := `variables.ways.exists(w, w.all(r, ` + has + `.exists(h, h.key == r.key && h.operator == r.operator && has(h.values) && h.values == r.values)))`
	expressions := `dyn(` + has + ` + (` + done + ` ? [] : ` + way + `))`
	joined := `has(` + t + `.matchFields) ? {"matchExpressions": ` + expressions + `, "matchFields": dyn(` + t + `.matchFields)} : {"matchExpressions": ` + expressions + `}`
	return `size(variables.ways) == 1 && size(variables.ways[0]) == 0 ? [] :
(has(object.spec.affinity) ? [] : [JSONPatch{op: "add", path: "` + path + `", value: Object.spec.affinity{}}]) +
(has(object.spec.affinity) && has(object.spec.affinity.nodeAffinity) ? [] : [JSONPatch{op: "add", path: "` + field + `", value: Object.spec.affinity.nodeAffinity{}}]) +
[JSONPatch{op: "add", path: "` + field + `/requiredDuringSchedulingIgnoredDuringExecution", value: {"nodeSelectorTerms": variables.numbers
  .filter(i, i < size(variables.terms) * size(variables.ways) && (i % size(variables.ways) == 0 || !` + done + `))
  .map(i, ` + joined + `)}}]`
}
