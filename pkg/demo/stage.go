// SPDX-License-Identifier: Apache-2.0

// Package demo installs Spotbench on a local cluster and plays its main job:
// three benchmarks are placed, one is interrupted by a spot notice, saved,
// restored elsewhere and finished, and everything is filed in the catalog. What
// it reports is measured from outside the programs it shows.
package demo

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/spotbench/spotbench/pkg/catalog/client"
	"github.com/spotbench/spotbench/pkg/localcluster"
	"github.com/spotbench/spotbench/pkg/localcluster/shape"
)

// DefaultNotice is the time AWS gives between a spot notice and the end.
const DefaultNotice = 2 * time.Minute

// Options says where and how to play.
type Options struct {
	// Cluster is the name of the local cluster.
	Cluster string
	// Root is the root of the source tree.
	Root string
	// CacheDir holds built programs and images; empty is the user's cache directory.
	CacheDir string
	// DataDir holds reference data, whose bench-results are imported too; empty is
	// shared/data beside the source tree, if there is one.
	DataDir string
	// Notice is the time between the notice and the machine's end.
	Notice time.Duration
	// Shape of the cluster; the default one if it has no nodes.
	Shape shape.Shape
	// GPUImages are the images that GPU nodes get, by name; all if empty.
	GPUImages []string
	// Workflows installs Argo Workflows and the benchmark pipeline too.
	Workflows bool
	// Complete installs the whole platform (manifests/overlays/local) on nodes that enforce
	// network policies, and not only what the benchmarks need.
	Complete bool
	// Output receives the progress.
	Output io.Writer
}

// Validate says which option is wrong and what would be right.
func (o *Options) Validate() error {
	var errs []error
	if o.Notice < 15*time.Second {
		errs = append(errs, fmt.Errorf("--notice %s: no cloud gives less than 15s; give 30s (GCP, Azure) or 2m (AWS)", o.Notice))
	}
	if _, err := os.Stat(filepath.Join(o.Root, "manifests")); err != nil {
		errs = append(errs, fmt.Errorf("--root %s: no manifests/ in it; give the root of the source tree", o.Root))
	}
	if o.DataDir != "" {
		if _, err := os.Stat(o.DataDir); err != nil {
			errs = append(errs, fmt.Errorf("--data %s: %w; leave it out, or give the directory that holds bench-results", o.DataDir, err))
		}
	}
	return errors.Join(errs...)
}

// Credentials are those of the object store inside the cluster.
type Credentials struct{ AccessKey, SecretKey string }

// Stage is a local cluster with Spotbench installed on it.
type Stage struct {
	Cluster    *localcluster.Cluster
	Client     kubernetes.Interface
	RESTConfig *rest.Config
	Kubectl    Kubectl
	// CatalogURL is the plain, read-only address of the catalog; CatalogTLSURL takes writes.
	CatalogURL, CatalogTLSURL string
	ObjectStore               Credentials
	// Catalog is a client that may write.
	Catalog *client.Client

	opts     Options
	caPEM    []byte
	progress *Progress
}

// Run prepares a stage, plays on it, and leaves the cluster running. A report with an
// error has what was measured up to it.
func Run(ctx context.Context, opts Options) (*Report, error) {
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	stage, err := Prepare(ctx, opts)
	if err != nil {
		return nil, err
	}
	if opts.Workflows {
		if err := stage.InstallWorkflows(ctx); err != nil {
			return nil, err
		}
	}
	report, err := stage.Play(ctx, opts.Notice)
	stage.KeepsRunning()
	return report, err
}

// KeepsRunning says how to look around in the cluster and how to remove it.
func (s *Stage) KeepsRunning() {
	s.progress.Step("the cluster keeps running: export KUBECONFIG=%s; remove it with `make demo-down`", s.Kubectl.Kubeconfig)
}

// Down removes the cluster.
func (s *Stage) Down(ctx context.Context) error {
	if s.Cluster == nil {
		return nil
	}
	return s.Cluster.Down(ctx)
}

func (s *Stage) path(rel string) string { return filepath.Join(s.opts.Root, rel) }

// connect makes the clients for the cluster's kubeconfig.
func (s *Stage) connect(kubectl, kubeconfig string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return fmt.Errorf("kubeconfig %s: %w", kubeconfig, err)
	}
	config.QPS, config.Burst = 50, 100
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	s.Client, s.RESTConfig, s.Kubectl = client, config, Kubectl{Path: kubectl, Kubeconfig: kubeconfig}
	return nil
}

// installSecrets creates what the manifests refer to but cannot contain.
func (s *Stage) installSecrets(ctx context.Context, tlsCert, tlsKey []byte) error {
	s.ObjectStore = Credentials{AccessKey: "spotbench", SecretKey: randomKey()}
	for _, namespace := range []string{"spotbench-system", "model-catalog", "data-storage"} {
		if err := EnsureNamespace(ctx, s.Client, namespace); err != nil {
			return fmt.Errorf("namespace %s: %w", namespace, err)
		}
	}
	if err := EnsureSecret(ctx, s.Client, "data-storage", "object-store-credentials", corev1.SecretTypeOpaque, map[string][]byte{
		"accessKey": []byte(s.ObjectStore.AccessKey), "secretKey": []byte(s.ObjectStore.SecretKey)}); err != nil {
		return fmt.Errorf("credentials of the object store: %w", err)
	}
	if err := EnsureSecret(ctx, s.Client, "spotbench-system", "node-agent-store", corev1.SecretTypeOpaque, map[string][]byte{
		"AWS_ACCESS_KEY_ID": []byte(s.ObjectStore.AccessKey), "AWS_SECRET_ACCESS_KEY": []byte(s.ObjectStore.SecretKey)}); err != nil {
		return fmt.Errorf("credentials of the node agent: %w", err)
	}
	if err := EnsureSecret(ctx, s.Client, "model-catalog", "api-service-tls", corev1.SecretTypeTLS, map[string][]byte{
		corev1.TLSCertKey: tlsCert, corev1.TLSPrivateKeyKey: tlsKey}); err != nil {
		return fmt.Errorf("certificate of the catalog: %w", err)
	}
	return EnsureConfigMap(ctx, s.Client, "spotbench-system", "spotbench-ca", map[string]string{"ca.crt": string(s.caPEM)})
}

func randomKey() string {
	key := make([]byte, 20)
	rand.Read(key) // never fails: crypto/rand aborts the program instead
	return hex.EncodeToString(key)
}
