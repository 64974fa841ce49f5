// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"strings"
	"testing"
)

func TestAModuleWithAnotherChecksumThanThePinnedOneIsRefused(t *testing.T) {
	m := kubernetes
	if _, err := m.get(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.sum = "h1:other"
	if _, err := m.get(t.Context()); err == nil || !strings.Contains(err.Error(), "h1:other that was pinned") {
		t.Errorf("got %v, want the pinned checksum in an error", err)
	}
}

func TestAPatternThatMatchesNoFileIsAnErrorRatherThanNoDefinitions(t *testing.T) {
	m := kubernetes
	m.crds = []string{"none/*.yaml"}
	if _, err := m.definitions(t.TempDir()); err == nil || !strings.Contains(err.Error(), "none/*.yaml") {
		t.Errorf("got %v, want the pattern in an error", err)
	}
}

func TestEveryModuleHasDefinitions(t *testing.T) {
	crds, err := CRDs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	groups := map[string]bool{}
	for _, crd := range crds {
		groups[crd.Spec.Group] = true
	}
	for _, group := range []string{"argoproj.io", "autoscaling.k8s.io", "external-secrets.io", "gateway.networking.k8s.io", "karpenter.kwok.sh", "karpenter.sh",
		"keda.sh", "monitoring.coreos.com", "postgresql.cnpg.io"} {
		if !groups[group] {
			t.Errorf("no definition of group %s", group)
		}
	}
}

func TestOnlyDefinitionsAreReadFromAFile(t *testing.T) {
	crds, err := ReadCRDs([]byte("kind: Service\n---\nkind: CustomResourceDefinition\nmetadata: {name: a}\n---\n\n---\nkind: CustomResourceDefinition\nmetadata: {name: b}\n"))
	if err != nil || len(crds) != 2 || crds[0].Name != "a" || crds[1].Name != "b" {
		t.Errorf("got %v, %v; want a and b", crds, err)
	}
	if _, err := ReadCRDs([]byte("kind: [")); err == nil {
		t.Error("broken YAML is read")
	}
}

func FuzzReadCRDsNeverPanics(f *testing.F) {
	f.Add([]byte("kind: CustomResourceDefinition\n---\nkind: a"))
	f.Fuzz(func(t *testing.T, data []byte) {
		crds, err := ReadCRDs(data)
		if err != nil {
			return // refused, as it should be
		}
		for _, crd := range crds {
			if crd.Kind != "CustomResourceDefinition" {
				t.Errorf("read a %s", crd.Kind)
			}
		}
	})
}
