// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
)

// Kubectl runs the kubectl binary against one cluster.
type Kubectl struct {
	Path       string
	Kubeconfig string
}

// Run runs kubectl with args and returns what it printed; its standard error is
// part of the error.
func (k Kubectl) Run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, k.Path, args...)
	cmd.Env = append(cmd.Environ(), "KUBECONFIG="+k.Kubeconfig)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return out.String(), nil
}

// ApplyKustomization applies a directory with `kubectl apply --server-side -k`.
// Policies and CRDs take a moment to be served, so what is refused for that
// reason is tried again until ctx ends.
func (k Kubectl) ApplyKustomization(ctx context.Context, dir string) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, time.Second, 30*time.Second, true, func(ctx context.Context) (bool, error) {
		_, last = k.Run(ctx, "apply", "--server-side", "--force-conflicts", "-k", dir)
		return last == nil, nil
	})
	if err != nil {
		return errors.Join(last, err)
	}
	return nil
}

// EnsureNamespace creates a namespace that does not exist yet.
func EnsureNamespace(ctx context.Context, client kubernetes.Interface, name string) error {
	_, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// EnsureSecret creates the Secret, or replaces the data of the one that is there.
func EnsureSecret(ctx context.Context, client kubernetes.Interface, namespace, name string, kind corev1.SecretType, data map[string][]byte) error {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Type: kind, Data: data}
	_, err := client.CoreV1().Secrets(namespace).Create(ctx, secret, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		_, err = client.CoreV1().Secrets(namespace).Update(ctx, secret, metav1.UpdateOptions{})
	}
	return err
}

// EnsureConfigMap creates the ConfigMap, or replaces the data of the one that is there.
func EnsureConfigMap(ctx context.Context, client kubernetes.Interface, namespace, name string, data map[string]string) error {
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: data}
	_, err := client.CoreV1().ConfigMaps(namespace).Create(ctx, cm, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		_, err = client.CoreV1().ConfigMaps(namespace).Update(ctx, cm, metav1.UpdateOptions{})
	}
	return err
}

// WaitRolledOut waits until every Deployment, StatefulSet and DaemonSet of the namespaces has
// all its pods ready, and otherwise says which pod is not and why.
func WaitRolledOut(ctx context.Context, client kubernetes.Interface, timeout time.Duration, namespaces ...string) error {
	var missing string
	err := wait.PollUntilContextTimeout(ctx, 500*time.Millisecond, timeout, true, func(ctx context.Context) (bool, error) {
		missing = ""
		for _, ns := range namespaces {
			deployments, err := client.AppsV1().Deployments(ns).List(ctx, metav1.ListOptions{})
			if err != nil {
				missing = err.Error()
				return false, nil //nolint:nilerr // a busy API server is asked again until the timeout
			}
			for _, d := range deployments.Items {
				if !deploymentReady(&d) {
					missing = fmt.Sprintf("deployment %s/%s", ns, d.Name)
					return false, nil
				}
			}
			statefulSets, err := client.AppsV1().StatefulSets(ns).List(ctx, metav1.ListOptions{})
			if err != nil {
				missing = err.Error()
				return false, nil //nolint:nilerr // as above
			}
			for _, set := range statefulSets.Items {
				if !statefulSetReady(&set) {
					missing = fmt.Sprintf("statefulset %s/%s", ns, set.Name)
					return false, nil
				}
			}
			daemonSets, err := client.AppsV1().DaemonSets(ns).List(ctx, metav1.ListOptions{})
			if err != nil {
				missing = err.Error()
				return false, nil //nolint:nilerr // as above
			}
			for _, d := range daemonSets.Items {
				if !daemonSetReady(&d) {
					missing = fmt.Sprintf("daemonset %s/%s", ns, d.Name)
					return false, nil
				}
			}
		}
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("%s is not ready after %s: %w\n%s", missing, timeout, err, unreadyPods(context.WithoutCancel(ctx), client, namespaces))
	}
	return nil
}

func deploymentReady(d *appsv1.Deployment) bool {
	return d.Status.ObservedGeneration >= d.Generation && d.Spec.Replicas != nil &&
		d.Status.UpdatedReplicas == *d.Spec.Replicas && d.Status.Replicas == *d.Spec.Replicas && d.Status.AvailableReplicas == *d.Spec.Replicas
}

func statefulSetReady(s *appsv1.StatefulSet) bool {
	return s.Status.ObservedGeneration >= s.Generation && s.Spec.Replicas != nil &&
		s.Status.UpdatedReplicas == *s.Spec.Replicas && s.Status.AvailableReplicas == *s.Spec.Replicas
}

func daemonSetReady(d *appsv1.DaemonSet) bool {
	return d.Status.ObservedGeneration >= d.Generation && d.Status.DesiredNumberScheduled > 0 &&
		d.Status.UpdatedNumberScheduled == d.Status.DesiredNumberScheduled && d.Status.NumberAvailable == d.Status.DesiredNumberScheduled
}

// unreadyPods describes the pods that are not ready, for an error message.
func unreadyPods(ctx context.Context, client kubernetes.Interface, namespaces []string) string {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var lines []string
	for _, ns := range namespaces {
		pods, err := client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err.Error()
		}
		for _, pod := range pods.Items {
			for _, s := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
				if w := s.State.Waiting; w != nil {
					lines = append(lines, fmt.Sprintf("  %s/%s %s: %s %s", ns, pod.Name, s.Name, w.Reason, w.Message))
				} else if term := s.State.Terminated; term != nil && term.ExitCode != 0 {
					lines = append(lines, fmt.Sprintf("  %s/%s %s: exit code %d %s", ns, pod.Name, s.Name, term.ExitCode, term.Message))
				}
			}
			if pod.Status.Phase == corev1.PodPending {
				for _, c := range pod.Status.Conditions {
					if c.Status == corev1.ConditionFalse && c.Type == corev1.PodScheduled {
						lines = append(lines, fmt.Sprintf("  %s/%s: %s", ns, pod.Name, c.Message))
					}
				}
			}
		}
	}
	return strings.Join(lines, "\n")
}
