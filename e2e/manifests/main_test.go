// SPDX-License-Identifier: Apache-2.0

// Package manifests_test applies every kustomization to a real API server that has the
// definitions of all custom resources, without nodes: what it shows is what the API
// server itself decides (validation, admission, authorization).
package manifests_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/localcluster"
	"github.com/spotbench/spotbench/pkg/localcluster/toolchain"
	"github.com/spotbench/spotbench/pkg/manifest"
	"github.com/spotbench/spotbench/pkg/manifest/upstream"
)

const root = "../../manifests"

// withoutDefinition is the one kind whose definition is in no module.
const withoutDefinition = "EC2NodeClass"

// admin may do everything at the API server, which has the namespaces and the rights of
// the overlay aws.
var admin client.Client

// kubectl is the program.
var kubectl string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) (code int) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	env, err := start(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		fmt.Println("SKIP: run `localcluster build` first:", err)
		return 0
	}
	if err != nil {
		fmt.Println("FAIL: start an API server:", err)
		return 1
	}
	defer func() {
		if err := env.Stop(); err != nil {
			fmt.Println("FAIL: stop the API server:", err)
			code = 1
		}
	}()
	if err := prepare(ctx); err != nil {
		fmt.Println("FAIL: apply namespaces, rights and policies:", err)
		return 1
	}
	return m.Run()
}

// start an API server with all definitions; fs.ErrNotExist where its programs are not built.
func start(ctx context.Context) (*envtest.Environment, error) {
	cache, err := localcluster.DefaultCacheDir()
	if err != nil {
		return nil, fmt.Errorf("find the programs: %w", err)
	}
	tools, err := toolchain.Cached(cache)
	if err != nil {
		return nil, fmt.Errorf("find the programs: %w", err)
	}
	for variable, program := range map[string]string{"TEST_ASSET_ETCD": "etcd", "TEST_ASSET_KUBE_APISERVER": "kube-apiserver"} {
		if _, err := os.Stat(tools.Path(program)); err != nil {
			return nil, fmt.Errorf("find the programs: %w", err)
		}
		if err := os.Setenv(variable, tools.Path(program)); err != nil { // envtest finds programs so
			return nil, fmt.Errorf("tell envtest its programs: %w", err)
		}
	}
	crds, err := upstream.CRDs(ctx)
	if err != nil {
		return nil, errors.New("definitions: " + err.Error()) // not fs.ErrNotExist, which would skip
	}
	env := newEnvironment(crds)
	config, err := env.Start()
	if err != nil {
		return nil, fmt.Errorf("start: %w", err)
	}
	kubectl = tools.Path("kubectl")
	config.QPS, config.Burst = 500, 500
	config.WarningHandler = rest.NewWarningWriter(os.Stdout, rest.WarningWriterOptions{Deduplicate: true})
	kinds := runtime.NewScheme()
	if err := scheme.AddToScheme(kinds); err != nil {
		return env, fmt.Errorf("kinds: %w", err)
	}
	admin, err = client.New(config, client.Options{Scheme: kinds})
	return env, err
}

// newEnvironment is an API server that is to have these definitions, and ours.
func newEnvironment(crds []*apiextensions.CustomResourceDefinition) *envtest.Environment {
	env := &envtest.Environment{CRDs: crds, ControlPlaneStartTimeout: time.Minute,
		CRDInstallOptions: envtest.CRDInstallOptions{MaxTime: 2 * time.Minute, Paths: []string{root + "/base/scheduler/podgroup-crd.yaml"}, ErrorIfPathMissing: true}}
	env.ControlPlane.GetAPIServer().Configure().
		Append("feature-gates", "MutatingAdmissionPolicy=true").
		Append("runtime-config", "admissionregistration.k8s.io/v1beta1=true")
	return env
}

// prepared are the kinds that decide what the API server does with others.
var prepared = []string{"Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding",
	"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"}

// prepare applies what other objects need: namespaces, definitions, and who may do what.
func prepare(ctx context.Context) error {
	for _, dir := range []string{"overlays/aws", "overlays/kind", "base/affinity", "demo"} {
		objects, err := manifest.Build(filepath.Join(root, dir))
		if err != nil {
			return err
		}
		for i := range objects {
			if !slices.Contains(prepared, objects[i].GetKind()) {
				continue
			}
			if err := apply(ctx, &objects[i]); err != nil {
				return fmt.Errorf("%s: %w", &objects[i], err)
			}
		}
	}
	return untilPoliciesHold(ctx)
}

// untilPoliciesHold waits until the API server has seen the policies, which it watches.
func untilPoliciesHold(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		right := benchmark(map[string]string{benchspec.AnnotationGPUModel: "L4-24GB"})
		wrong := benchmark(map[string]string{benchspec.AnnotationCapacity: "cheap"})
		err := admin.Create(ctx, right, client.DryRunAll)
		if err == nil && right.Spec.Affinity != nil && admin.Create(ctx, wrong, client.DryRunAll) != nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the policies on annotations do not hold after 30 s: %w", errors.Join(err, ctx.Err()))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// apply by server-side apply.
func apply(ctx context.Context, o *manifest.Object, options ...client.ApplyOption) error {
	options = append(options, client.FieldOwner("test"), client.ForceOwnership)
	return admin.Apply(ctx, client.ApplyConfigurationFromUnstructured(o.DeepCopy()), options...)
}

// podOf is the pod that a workload's controller would create.
func podOf(t *testing.T, o *manifest.Object) (*corev1.Pod, bool) {
	t.Helper()
	var path []string
	switch o.GetKind() {
	case "Deployment", "StatefulSet", "DaemonSet", "Job":
		path = []string{"spec", "template"}
	case "CronJob":
		path = []string{"spec", "jobTemplate", "spec", "template"}
	default:
		return nil, false
	}
	template := o.Object
	for _, key := range path {
		template = template[key].(map[string]any)
	}
	pod := new(corev1.Pod)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(template, pod); err != nil {
		t.Fatalf("%s: %v", o, err)
	}
	pod.Name, pod.Namespace = o.GetName(), o.GetNamespace()
	if claims, ok := o.Object["spec"].(map[string]any)["volumeClaimTemplates"].([]any); ok {
		for _, claim := range claims { // the controller of StatefulSets adds the volume
			name := claim.(map[string]any)["metadata"].(map[string]any)["name"].(string)
			pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: name,
				VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}})
		}
	}
	return pod, true
}
