// SPDX-License-Identifier: Apache-2.0

package manifests_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
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
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(kubeconfig, adminKubeconfig, 0o600); err != nil {
		t.Fatal(err)
	}
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
			if err := admin.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, &secret); err != nil {
				t.Error(err)
			}
		}
	}
	var owner, catalog corev1.Secret
	if err := admin.Get(t.Context(), client.ObjectKey{Namespace: "data-storage", Name: "catalog-db-owner"}, &owner); err != nil {
		t.Fatal(err)
	}
	if err := admin.Get(t.Context(), client.ObjectKey{Namespace: "model-catalog", Name: "catalog-secrets"}, &catalog); err != nil {
		t.Fatal(err)
	}
	if password := string(owner.Data["password"]); len(password) != 48 || password != string(catalog.Data["DB_PASSWORD"]) {
		t.Error("the database and the catalog are given different passwords")
	}
}
