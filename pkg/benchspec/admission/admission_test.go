// SPDX-License-Identifier: Apache-2.0

package admission_test

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiadmission "k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/cel/environment"
	"pgregory.net/rapid"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/benchspec/admission"
)

// compile builds a policy as the API server does, with its own CEL environment and
// validator, and fails on any expression that does not compile.
func compile(t testing.TB, policy admissionv1.ValidatingAdmissionPolicy) validating.Validator {
	t.Helper()
	env, err := cel.NewCompositionEnv(cel.VariablesTypeName, environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion(), true))
	if err != nil {
		t.Fatal(err)
	}
	compiler := cel.NewCompositedCompilerFromTemplate(env)
	decls := cel.OptionalVariableDeclarations{HasAuthorizer: true, StrictCost: true}
	messageDecls := cel.OptionalVariableDeclarations{StrictCost: true}
	for _, v := range policy.Spec.Variables {
		compiler.CompileAndStoreVariable(&validating.Variable{Name: v.Name, Expression: v.Expression}, decls, environment.NewExpressions)
	}
	var conditions, rules, messages []cel.ExpressionAccessor
	for i := range policy.Spec.MatchConditions {
		conditions = append(conditions, (*matchconditions.MatchCondition)(&policy.Spec.MatchConditions[i]))
	}
	for _, v := range policy.Spec.Validations {
		rules = append(rules, &validating.ValidationCondition{Expression: v.Expression, Message: v.Message, Reason: v.Reason})
		if v.MessageExpression == "" {
			messages = append(messages, nil)
			continue
		}
		messages = append(messages, &validating.MessageExpressionCondition{MessageExpression: v.MessageExpression})
	}
	match := compiler.CompileCondition(conditions, decls, environment.NewExpressions)
	rule := compiler.CompileCondition(rules, decls, environment.NewExpressions)
	message := compiler.CompileCondition(messages, messageDecls, environment.NewExpressions)
	for _, c := range []cel.ConditionEvaluator{match, rule, message} {
		for _, err := range c.CompilationErrors() {
			t.Errorf("policy %s: %v", policy.Name, err)
		}
	}
	return validating.NewValidator(rule,
		matchconditions.NewMatcher(match, policy.Spec.FailurePolicy, "policy", "validate", policy.Name),
		compiler.CompileCondition(nil, decls, environment.NewExpressions), message, policy.Spec.FailurePolicy)
}

// reporter is what the helpers need of a test, be it of the standard library or of
// package rapid.
type reporter interface {
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
}

// request is one write that the policies judge.
type request struct {
	object, old runtime.Object
	user        string
}

// denials are the messages with which a policy denies a request; none admit it.
func denials(t reporter, v validating.Validator, r request) []string {
	t.Helper()
	kind := r.object.GetObjectKind().GroupVersionKind()
	operation := apiadmission.Create
	if r.old != nil {
		operation = apiadmission.Update
	}
	attributes := apiadmission.NewAttributesRecord(r.object, r.old, kind, "ns", "name", schema.GroupVersionResource{}, "", operation, nil, false, &user.DefaultInfo{Name: r.user})
	versioned, err := apiadmission.NewVersionedAttributes(attributes, kind, apiadmission.NewObjectInterfacesFromScheme(runtime.NewScheme()))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	result := v.Validate(context.Background(), schema.GroupVersionResource{}, versioned, nil, nil, celconfig.RuntimeCELCostBudget, nil)
	for _, d := range result.Decisions {
		if d.Action == validating.ActionDeny {
			out = append(out, d.Message)
		}
	}
	return out
}

func pod(annotations map[string]string) runtime.Object {
	return &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: metav1.ObjectMeta{Annotations: annotations}}
}

func template(annotations map[string]string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Annotations: annotations}}
}

func job(annotations map[string]string) runtime.Object {
	return &batchv1.Job{TypeMeta: metav1.TypeMeta{APIVersion: "batch/v1", Kind: "Job"}, Spec: batchv1.JobSpec{Template: template(annotations)}}
}

func deployment(annotations map[string]string) runtime.Object {
	return &appsv1.Deployment{TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}, Spec: appsv1.DeploymentSpec{Template: template(annotations)}}
}

func cronJob(annotations map[string]string) runtime.Object {
	return &batchv1.CronJob{TypeMeta: metav1.TypeMeta{APIVersion: "batch/v1", Kind: "CronJob"},
		Spec: batchv1.CronJobSpec{JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: template(annotations)}}}}
}

// policyOf is the compiled policy for pods, pod templates or CronJobs.
func policyOf(t testing.TB, suffix string) validating.Validator {
	t.Helper()
	for _, p := range admission.Policies() {
		if p.Name == "spotbench-annotations-"+suffix {
			return compile(t, p)
		}
	}
	t.Fatalf("no policy for %s", suffix)
	return nil
}

func TestPoliciesDenyMalformedAnnotationsWithNameValueAndExample(t *testing.T) {
	for name, test := range map[string]struct {
		policy string
		object func(map[string]string) runtime.Object
	}{
		"pod":                     {"pods", pod},
		"template of a Job":       {"templates", job},
		"template of Deployments": {"templates", deployment},
		"template of a CronJob":   {"cronjobs", cronJob},
	} {
		t.Run(name, func(t *testing.T) {
			v := policyOf(t, test.policy)
			got := denials(t, v, request{object: test.object(map[string]string{benchspec.AnnotationGPUMemory: "80 GB"})})
			if len(got) != 1 {
				t.Fatalf("denials: %q, want one", got)
			}
			for _, part := range []string{"spotbench.dev/gpu-memory", `"80 GB"`, "example of a right one: 80Gi"} {
				if !strings.Contains(got[0], part) {
					t.Errorf("message %q does not mention %q", got[0], part)
				}
			}
			if got := denials(t, v, request{object: test.object(map[string]string{benchspec.AnnotationGPUMemory: "80Gi"})}); len(got) > 0 {
				t.Errorf("80Gi is denied: %q", got)
			}
			if got := denials(t, v, request{object: test.object(nil)}); len(got) > 0 {
				t.Errorf("an object without annotations is denied: %q", got)
			}
		})
	}
}

func TestPoliciesOfPodsDealWithTheRestOfTheContract(t *testing.T) {
	v := policyOf(t, "pods")
	broken := map[string]string{benchspec.AnnotationCapacity: "cheap"}
	placed := map[string]string{benchspec.AnnotationPlacement: `{"node":"n"}`}
	for name, test := range map[string]struct {
		request request
		want    string // "" admits
	}{
		"a misspelt name is denied with the known ones": {
			request{object: pod(map[string]string{benchspec.Prefix + "gpu-mode": "L4"})}, "annotation spotbench.dev/gpu-mode is not an annotation that Spotbench knows"},
		"annotations of others are not ours to judge": {
			request{object: pod(map[string]string{"example.com/gpu-mode": "L4"})}, ""},
		"a command without a directory is denied": {
			request{object: pod(map[string]string{benchspec.AnnotationCheckpointCommand: `["/bin/save"]`})}, "means nothing without spotbench.dev/checkpoint-path"},
		"command and signal together are denied": {
			request{object: pod(map[string]string{benchspec.AnnotationCheckpointPath: "/c", benchspec.AnnotationCheckpointCommand: `["a"]`, benchspec.AnnotationCheckpointSignal: "SIGUSR1"})}, "cannot stand beside"},
		"a value with a line break is denied with the constant message": {
			request{object: pod(map[string]string{benchspec.AnnotationModel: "a\nb"})}, "annotation spotbench.dev/model must be"},
		"a very long value is cut in the message": {
			request{object: pod(map[string]string{benchspec.AnnotationModel: strings.Repeat("x", 5000)})}, strings.Repeat("x", 80) + `..."`},
		"a pod from before the policy can still be updated": {
			request{object: pod(broken), old: pod(broken)}, ""},
		"an update that breaks an annotation is denied": {
			request{object: pod(broken), old: pod(nil)}, "annotation spotbench.dev/capacity"},
		"a person cannot write a placement": {
			request{object: pod(placed), user: "alice"}, "is written by the scheduler alone"},
		"a person cannot change a placement": {
			request{object: pod(map[string]string{benchspec.AnnotationPlacement: `{"node":"m"}`}), old: pod(placed), user: "alice"}, "is written by the scheduler alone"},
		"a person can change another annotation of a placed pod": {
			request{object: pod(map[string]string{benchspec.AnnotationPlacement: `{"node":"n"}`, "a": "b"}), old: pod(placed), user: "alice"}, ""},
		"the scheduler writes placements": {
			request{object: pod(placed), old: pod(nil), user: admission.SchedulerUser}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := denials(t, v, test.request)
			switch {
			case test.want == "" && len(got) > 0:
				t.Errorf("denied: %q", got)
			case test.want != "" && (len(got) != 1 || !strings.Contains(got[0], test.want)):
				t.Errorf("denials %q, want one with %q", got, test.want)
			}
		})
	}
}

func TestOnlyTheSchedulerBindsAPodWithAPlacement(t *testing.T) {
	v := policyOf(t, "bindings")
	binding := func(annotations map[string]string) runtime.Object {
		return &corev1.Binding{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Binding"}, ObjectMeta: metav1.ObjectMeta{Annotations: annotations}}
	}
	placed := map[string]string{benchspec.AnnotationPlacement: `{"node":"n"}`}
	for name, test := range map[string]struct {
		request request
		want    string
	}{
		"another scheduler binds without one":   {request{object: binding(nil), user: "system:kube-scheduler"}, ""},
		"another scheduler cannot bind with it": {request{object: binding(placed), user: "system:kube-scheduler"}, "is written by the scheduler alone"},
		"ours can":                              {request{object: binding(placed), user: admission.SchedulerUser}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := denials(t, v, test.request)
			if test.want == "" && len(got) > 0 || test.want != "" && (len(got) != 1 || !strings.Contains(got[0], test.want)) {
				t.Errorf("denials %q, want %q", got, test.want)
			}
		})
	}
}

// The API server and the parser are two readers of one contract. Whatever one of
// them lets through, the other does too.
func FuzzPolicyAndParserAgree(f *testing.F) {
	v := policyOf(f, "pods")
	for _, row := range benchspec.Annotations() {
		if row.Writer == benchspec.WriterUser {
			f.Add(row.Name, row.Example)
		}
	}
	for name, values := range map[string][]string{
		benchspec.AnnotationGPUModel:            {"", " ", ",", "A100", "H100 80GB", "NVIDIA-x", "nvidia-l4", "l4 , t4", "A100-80GB-MIG-INVALID", "a100-sxm4-40gb-mig-1g.5gb", "A100-SXM4-40GB-MIG-1g.5gb", "A100-80GB-SHARED", "NVIDIA-", "GRID-_", "L4-MIG-99g.999gb.me"},
		benchspec.AnnotationGPUMemory:           {"80 GB", "0", "0Gi", "1.5Gi", "99999999999999Ti", "9223372036854775807", "9999999999999999999", "1k", "1m", "80gi"},
		benchspec.AnnotationMaxInterruptionRisk: {"10%", "1.1", ".5", "0.", "1.0", "-0", "1e-1"},
		benchspec.AnnotationExpectedDuration:    {"45", "0s", "0h0m", "1d", "8760h", "8760h1s", "8761h", "9999h9999h9999h9999h", "1h1h1h1h1h", "999999999h", "0.000000001ms", "0.0000001ms", "1us"},
		benchspec.AnnotationCheckpointInterval:  {"auto", "999ms", "1s", "8760h", "8761h", "0.5s0.5s", "autos"},
		benchspec.AnnotationDeadline:            {"2027-02-29T00:00:00Z", "2028-02-29T00:00:00Z", "2100-02-29T00:00:00Z", "2000-02-29T00:00:00Z", "2027-04-31T00:00:00Z", "1970-01-01T00:00:00Z", "1970-01-01T00:00:00-01:00", "9999-12-31T23:59:59Z", "0000-01-01T00:00:00Z", "2027-01-01T00:00:60Z", "2027-01-01T00:00:00+24:00", "9999-12-31T23:59:59-23:59"},
		benchspec.AnnotationCheckpointPath:      {"/", "/a", "/a/", "/a/.", "/..", "/a/../b", "/a//b", "/...", "/é", "/\xff", "/a\tb", "//"},
		benchspec.AnnotationCheckpointCommand:   {`[]`, `[""]`, `["a",]`, `["\ud800"]`, `["\u12"]`, `["é"]`, "[\"\xff\"]", `["a"]x`, `["a", ""]`, "[\"a\"\n]"},
		benchspec.AnnotationCheckpointSignal:    {"SIGKILL", "sigusr1"},
		benchspec.AnnotationModel:               {"-", "é", "a b", strings.Repeat("x", 255), strings.Repeat("x", 256)},
		benchspec.AnnotationRun:                 {"a", "a-", "A", "a/b", strings.Repeat("r", 128), strings.Repeat("r", 129)},
		benchspec.Prefix + "gpu-mode":           {"x"},
	} {
		for _, value := range values {
			f.Add(name, value)
		}
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		agree(t, v, name, value)
	})
}

// Slips of the keyboard in right values, by the thousand.
func TestPolicyAndParserAgreeOnSlips(t *testing.T) {
	v := policyOf(t, "pods")
	rows := slices.DeleteFunc(benchspec.Annotations(), func(a benchspec.Annotation) bool { return a.Writer != benchspec.WriterUser })
	letters := []rune("0123456789.-+:/,_@ []{}\"\\'hmsTZKMGiaAbxSIN\t\né")
	rapid.Check(t, func(t *rapid.T) {
		row := rapid.SampledFrom(rows).Draw(t, "row")
		value := []rune(row.Example)
		for range rapid.IntRange(1, 3).Draw(t, "slips") {
			at := rapid.IntRange(0, len(value)).Draw(t, "at")
			letter := rapid.SampledFrom(letters).Draw(t, "letter")
			switch rapid.SampledFrom([]string{"insert", "delete", "replace", "double"}).Draw(t, "slip") {
			case "insert":
				value = slices.Insert(value, at, letter)
			case "delete":
				value = slices.Delete(value, min(at, len(value)), min(at+1, len(value)))
			case "replace":
				if at < len(value) {
					value[at] = letter
				}
			case "double":
				value = append(value, value[at:]...)
			}
		}
		agree(t, v, row.Name, string(value))
	})
}

// agree fails when parser and policy judge one annotation differently, or when the
// policy does not say which it denies.
func agree(t reporter, v validating.Validator, name, value string) {
	t.Helper()
	if !strings.HasPrefix(name, benchspec.Prefix) || name == benchspec.AnnotationPlacement ||
		// The API server itself refuses such objects before any policy.
		strings.ToValidUTF8(name+value, "") != name+value {
		return
	}
	annotations := map[string]string{name: value}
	_, err := benchspec.Parse(annotations)
	denied := denials(t, v, request{object: pod(annotations)})
	if (err != nil) != (len(denied) > 0) {
		t.Errorf("%s=%q: the parser says %v, the policy %q", name, value, err, denied)
	}
	for _, message := range denied {
		if !strings.HasPrefix(message, "annotation "+name) && !strings.HasPrefix(message, "an annotation under ") {
			t.Errorf("%s=%q: the message %q does not name the annotation", name, value, message)
		}
	}
}

func TestGeneratedFilesAreUpToDate(t *testing.T) {
	manifest, err := admission.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	affinity, err := admission.AffinityManifest()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"../../../manifests/base/admission/policies.yaml": string(manifest),
		"../../../manifests/base/affinity/policy.yaml":    string(affinity),
		"../../../docs/reference/annotations.md":          benchspec.ReferencePage(),
	} {
		got, err := os.ReadFile(path)
		if err != nil {
			t.Errorf("%v; run \"go generate ./pkg/benchspec\"", err)
			continue
		}
		if string(got) != want {
			t.Errorf("%s differs from the table; run \"go generate ./pkg/benchspec\"", strings.TrimPrefix(path, "../../../"))
		}
	}
}
