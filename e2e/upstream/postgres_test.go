// SPDX-License-Identifier: Apache-2.0

//go:build linux

package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/spotbench/spotbench/pkg/catalog/certs"
	"github.com/spotbench/spotbench/pkg/demo"
	"github.com/spotbench/spotbench/pkg/localcluster/toolchain"
	"github.com/spotbench/spotbench/pkg/manifest"
)

const (
	postgresAPI = "postgresql.cnpg.io/v1"
	storage     = "data-storage"
)

// startOperator of CloudNativePG, beside the cluster, with its webhooks.
func startOperator(t *testing.T) {
	t.Helper()
	binary := program(t, toolchain.CloudNativePG)
	address, port, dir := cluster.HostIP().String(), freePort(t), t.TempDir()
	pair, err := certs.New([]string{address}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "apiserver.crt"), pair.Cert, 0o600), os.WriteFile(filepath.Join(dir, "apiserver.key"), pair.Key, 0o600)); err != nil {
		t.Fatal(err)
	}
	// The operator's image has itself for every architecture in this place, and the
	// architectures of a database are those.
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "operator"), 0o755), os.Symlink(binary, filepath.Join(dir, "operator", "manager_"+runtime.GOARCH))); err != nil {
		t.Fatal(err)
	}
	if err := demo.EnsureNamespace(t.Context(), cluster.Client(), "cnpg-system"); err != nil {
		t.Fatal(err)
	}
	daemon(t, dir, []string{"KUBECONFIG=" + cluster.Kubeconfig(), "OPERATOR_NAMESPACE=cnpg-system", "OPERATOR_IMAGE_NAME=ghcr.io/cloudnative-pg/cloudnative-pg:1.26.0", "WEBHOOK_CERT_DIR=" + dir,
		"MONITORING_QUERIES_CONFIGMAP="}, binary, "controller", "--webhook-port="+port, "--metrics-bind-address=127.0.0.1:"+freePort(t))
	eventually(t, time.Minute, "the operator's webhooks listen", func(ctx context.Context) error {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(address, port))
		if err != nil {
			return err
		}
		return c.Close()
	})
	fail, none := admissionv1.Fail, admissionv1.SideEffectClassNone
	hook := func(what, kind string) (string, admissionv1.WebhookClientConfig, []admissionv1.RuleWithOperations) {
		url := "https://" + net.JoinHostPort(address, port) + "/" + what + "-postgresql-cnpg-io-v1-" + strings.TrimSuffix(kind, "s")
		return what + "." + kind + ".cnpg.io", admissionv1.WebhookClientConfig{URL: &url, CABundle: pair.CA}, []admissionv1.RuleWithOperations{{
			Operations: []admissionv1.OperationType{admissionv1.Create, admissionv1.Update},
			Rule:       admissionv1.Rule{APIGroups: []string{"postgresql.cnpg.io"}, APIVersions: []string{"v1"}, Resources: []string{kind}}}}
	}
	mutating := &admissionv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "cnpg-mutating-webhook-configuration"}}
	validating := &admissionv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "cnpg-validating-webhook-configuration"}}
	for _, kind := range []string{"clusters", "backups", "scheduledbackups"} {
		name, config, rules := hook("mutate", kind)
		mutating.Webhooks = append(mutating.Webhooks, admissionv1.MutatingWebhook{Name: name, ClientConfig: config, Rules: rules, FailurePolicy: &fail, SideEffects: &none, AdmissionReviewVersions: []string{"v1"}})
		name, config, rules = hook("validate", kind)
		validating.Webhooks = append(validating.Webhooks, admissionv1.ValidatingWebhook{Name: name, ClientConfig: config, Rules: rules, FailurePolicy: &fail, SideEffects: &none, AdmissionReviewVersions: []string{"v1"}})
	}
	for _, o := range []client.Object{mutating, validating} {
		if err := admin.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := admin.Delete(context.Background(), o); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestTheOperatorMakesADatabaseOfOurCluster as far as it goes without PostgreSQL's image:
// its admission, the objects it makes, and that its pods are let into the namespace. A
// simulated node takes the pods.
func TestTheOperatorMakesADatabaseOfOurCluster(t *testing.T) {
	startOperator(t)
	if err := demo.EnsureSecret(t.Context(), cluster.Client(), storage, "catalog-db-owner", corev1.SecretTypeBasicAuth, map[string][]byte{"username": []byte("catalog"), "password": []byte("secret")}); err != nil {
		t.Fatal(err)
	}
	// What a StorageClass' provisioner would make.
	volume := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "disk"}, Spec: corev1.PersistentVolumeSpec{
		Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("500Gi")}, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: "gp3",
		PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/none"}}}}
	if err := admin.Create(t.Context(), volume); err != nil {
		t.Fatal(err)
	}
	objects := ofKind(t, "overlays/aws", "Cluster", "ScheduledBackup")
	if len(objects) != 2 {
		t.Fatalf("%d objects, want a Cluster and a ScheduledBackup", len(objects))
	}

	t.Run("its admission refuses what its definition lets pass", func(t *testing.T) {
		wrong := objects[slices.IndexFunc(objects, func(o manifest.Object) bool { return o.GetKind() == "Cluster" })].DeepCopy()
		if err := unstructured.SetNestedField(wrong.Object, int64(3), "spec", "maxSyncReplicas"); err != nil {
			t.Fatal(err)
		}
		if err := apply(t.Context(), wrong); err == nil || !strings.Contains(err.Error(), "maxSyncReplicas") {
			t.Errorf("as many synchronous replicas as instances: %v, want a refusal", err)
		}
	})
	for i := range objects {
		if objects[i].GetKind() == "Cluster" {
			tolerations := []any{map[string]any{"key": "simulated", "operator": "Exists"}}
			if err := unstructured.SetNestedSlice(objects[i].Object, tolerations, "spec", "affinity", "tolerations"); err != nil {
				t.Fatal(err)
			}
		}
		if err := apply(t.Context(), &objects[i].Unstructured); err != nil {
			t.Fatal(err)
		}
	}

	t.Run("services, secrets and rights are made", func(t *testing.T) {
		var have []string
		eventually(t, time.Minute, "all are there", func(ctx context.Context) error {
			have = nil
			for _, kind := range []string{"Service", "Secret", "ServiceAccount"} {
				found, err := list(ctx, "v1", kind, storage)
				if err != nil {
					return err
				}
				for _, o := range found {
					have = append(have, kind+" "+o.GetName())
				}
			}
			for _, want := range []string{"Service catalog-db-rw", "Service catalog-db-ro", "Service catalog-db-r", "Secret catalog-db-ca", "Secret catalog-db-server", "Secret catalog-db-replication", "ServiceAccount catalog-db"} {
				if !slices.Contains(have, want) {
					return fmt.Errorf("no %s among %v", want, have)
				}
			}
			return nil
		})
		account := new(corev1.ServiceAccount)
		if err := admin.Get(t.Context(), client.ObjectKey{Namespace: storage, Name: "catalog-db"}, account); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(account.Annotations["eks.amazonaws.com/role-arn"], "spotbench-backups") {
			t.Errorf("the account of the backups has %v, want its role", account.Annotations)
		}
	})

	t.Run("the primary's disk and pod are made and let in under the level restricted", func(t *testing.T) {
		var pod corev1.Pod
		eventually(t, 90*time.Second, "catalog-db-1 is there", func(ctx context.Context) error {
			err := admin.Get(ctx, client.ObjectKey{Namespace: storage, Name: "catalog-db-1"}, &pod)
			if err == nil {
				return nil
			}
			pods, listed := list(ctx, "v1", "Pod", storage)
			events, _ := list(ctx, "v1", "Event", storage)
			var reasons []string
			for _, e := range events {
				message, _, _ := unstructured.NestedString(e.Object, "message")
				reasons = append(reasons, message)
			}
			return fmt.Errorf("%w; pods: %s %w; %s", err, names(pods), listed, strings.Join(reasons, "; "))
		})
		want := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("16Gi")}
		for name, quantity := range want {
			if got := pod.Spec.Containers[0].Resources.Requests[name]; !got.Equal(quantity) {
				t.Errorf("the primary requests %s of %s, want %s", got.String(), name, quantity.String())
			}
		}
		// The address by which the catalog asks this server and no other.
		for _, o := range ofKind(t, "overlays/aws", "Service") {
			selector, _, err := unstructured.NestedStringMap(o.Object, "spec", "selector")
			if err != nil {
				t.Fatal(err)
			}
			if o.GetNamespace() == storage && labels.SelectorFromSet(selector).Matches(labels.Set(pod.Labels)) != (o.GetName() == pod.Name) {
				t.Errorf("the Service %s selects %v of a pod with %v", o.GetName(), selector, pod.Labels)
			}
		}
		var claim corev1.PersistentVolumeClaim
		if err := admin.Get(t.Context(), client.ObjectKey{Namespace: storage, Name: "catalog-db-1"}, &claim); err != nil {
			t.Fatal(err)
		}
		if size := claim.Spec.Resources.Requests[corev1.ResourceStorage]; size.String() != "500Gi" || claim.Status.Phase != corev1.ClaimBound {
			t.Errorf("the primary's disk is of %s and %s, want 500Gi and Bound", size.String(), claim.Status.Phase)
		}
	})

	t.Run("a budget keeps the primary from being drained with the rest", func(t *testing.T) {
		eventually(t, 30*time.Second, "the budget is there", func(ctx context.Context) error {
			return admin.Get(ctx, client.ObjectKey{Namespace: storage, Name: "catalog-db-primary"}, new(policyv1.PodDisruptionBudget))
		})
	})

	t.Run("the scheduled backup begins at once", func(t *testing.T) {
		eventually(t, time.Minute, "a Backup is there", func(ctx context.Context) error {
			backups, err := list(ctx, postgresAPI, "Backup", storage)
			if err == nil && len(backups) == 0 {
				err = errors.New("none")
			}
			return err
		})
	})
}
