// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spotbench/spotbench/pkg/images"
	"github.com/spotbench/spotbench/pkg/localcluster/toolchain"
)

// argoNamespace is where Argo's controller runs.
const argoNamespace = "argo"

// argoKustomization installs Argo Workflows from the manifests of its own release, with
// the images that are built here.
const argoKustomization = `apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: argo
resources:
  - %[1]s/base/crds/minimal
  - %[1]s/base/workflow-controller
  - %[1]s/cluster-install-no-crds/workflow-controller-rbac
images:
  - {name: quay.io/argoproj/workflow-controller, newName: spotbench.dev/workflow-controller, newTag: dev}
patches:
  - target: {kind: Deployment, name: workflow-controller}
    patch: |-
      - {op: replace, path: /spec/template/spec/containers/0/args, value: [--executor-image, spotbench.dev/argoexec:dev, --executor-image-pull-policy, IfNotPresent]}
`

// InstallWorkflows installs Argo Workflows, its real controller and executor, and the
// benchmark pipeline. Building them takes minutes the first time.
func (s *Stage) InstallWorkflows(ctx context.Context) error {
	s.progress.Headline("Argo Workflows is installed")
	tools, err := toolchain.Ensure(ctx, s.opts.CacheDir, s.progress.Step, toolchain.WorkflowController, toolchain.Argoexec)
	if err != nil {
		return err
	}
	var tars []string
	for _, name := range []string{toolchain.WorkflowController, toolchain.Argoexec} {
		tar := filepath.Join(s.opts.CacheDir, "demo-images", name+".tar")
		if err := images.Static(images.Ref(name), tools.Path(name), tar); err != nil {
			return err
		}
		tars = append(tars, tar)
	}
	s.progress.Step("loading its images into the nodes")
	nodes, err := s.Cluster.Nodes(ctx)
	if err != nil {
		return err
	}
	var all, system []string
	for _, node := range nodes {
		switch {
		case node.PID == 0: // the machine is gone
		case node.GPU == nil:
			system = append(system, node.Name)
			fallthrough
		default:
			all = append(all, node.Name)
		}
	}
	// The controller runs beside the platform's own pods, the executor in every step.
	if err := errors.Join(s.Cluster.LoadImagesTo(ctx, system, tars[0]), s.Cluster.LoadImagesTo(ctx, all, tars[1])); err != nil {
		return err
	}
	if err := EnsureNamespace(ctx, s.Client, argoNamespace); err != nil {
		return fmt.Errorf("namespace %s: %w", argoNamespace, err)
	}
	manifests, err := toolchain.ArgoManifests(ctx)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "spotbench-argo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	// Kustomize takes directories by relative paths only.
	base, err := filepath.Rel(dir, manifests)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), fmt.Appendf(nil, argoKustomization, base), 0o600); err != nil {
		return err
	}
	if err := s.Kubectl.ApplyKustomization(ctx, dir); err != nil {
		return fmt.Errorf("install Argo Workflows: %w", err)
	}
	s.progress.Step("kubectl apply -k manifests/workflows")
	if err := s.Kubectl.ApplyKustomization(ctx, s.path("manifests/workflows")); err != nil {
		return err
	}
	return WaitRolledOut(ctx, s.Client, rolloutTimeout, argoNamespace)
}
