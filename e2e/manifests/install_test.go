// SPDX-License-Identifier: Apache-2.0

package manifests_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/spotbench/spotbench/pkg/manifest/upstream"
)

// commands are those of a section of docs/install.md, as they are written there.
func commands(t *testing.T, section string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n## "+section+"\n")
	if !found {
		t.Fatalf("docs/install.md has no section %q", section)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	_, rest, _ = strings.Cut(rest, "```sh\n")
	block, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatalf("the section %q has no commands", section)
	}
	return block
}

// freshCluster is an API server that knows the kinds of Argo Workflows, as the section
// wants, and has nothing else.
func freshCluster(t *testing.T, kubeconfig string) (client.Client, string) {
	t.Helper()
	crds, err := upstream.CRDs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	env := newEnvironment(slices.DeleteFunc(crds, func(crd *apiextensions.CustomResourceDefinition) bool { return crd.Spec.Group != "argoproj.io" }))
	config, err := env.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := env.Stop(); err != nil {
			t.Error(err)
		}
	})
	user, err := env.AddUser(envtest.User{Name: "admin", Groups: []string{"system:masters"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := user.KubeConfig()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(kubeconfig, text, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c, kubeconfig
}

func TestTheCommandsForBareMetalWorkAsTheyAreWritten(t *testing.T) {
	repository, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	// They leave files beside them for a moment: not in the tree.
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(repository, "manifests"), filepath.Join(dir, "manifests")); err != nil {
		t.Fatal(err)
	}
	fresh, kubeconfig := freshCluster(t, filepath.Join(dir, "kubeconfig"))
	cmd := exec.CommandContext(t.Context(), "bash", "-eu", "-o", "pipefail", "-c", commands(t, "Bare metal and kind"))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "PATH="+filepath.Dir(kubectl)+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 2 {
		t.Errorf("left behind beside kubeconfig and manifests: %v", left)
	}
	for namespace, names := range map[string][]string{"data-storage": {"catalog-db-owner", "catalog-db-admin", "redis-auth", "object-store-credentials"}, "model-catalog": {"catalog-secrets"}} {
		for _, name := range names {
			var secret corev1.Secret
			if err := fresh.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, &secret); err != nil {
				t.Error(err)
			}
		}
	}
	var owner, catalog corev1.Secret
	if err := fresh.Get(t.Context(), client.ObjectKey{Namespace: "data-storage", Name: "catalog-db-owner"}, &owner); err != nil {
		t.Fatal(err)
	}
	if err := fresh.Get(t.Context(), client.ObjectKey{Namespace: "model-catalog", Name: "catalog-secrets"}, &catalog); err != nil {
		t.Fatal(err)
	}
	if password := string(owner.Data["password"]); len(password) != 48 || password != string(catalog.Data["DB_PASSWORD"]) {
		t.Error("the database and the catalog are given different passwords")
	}
}
