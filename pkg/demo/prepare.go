// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/spotbench/spotbench/pkg/catalog/certs"
	"github.com/spotbench/spotbench/pkg/catalog/client"
	"github.com/spotbench/spotbench/pkg/gpusim"
	"github.com/spotbench/spotbench/pkg/images"
	"github.com/spotbench/spotbench/pkg/localcluster"
	"github.com/spotbench/spotbench/pkg/localcluster/toolchain"
)

const (
	// Ports of every node that lead to the catalog (manifests/overlays/demo).
	catalogTLSPort = 30800
	catalogWebPort = 30801
	// catalogName is what certificates and clients inside the cluster call it.
	catalogName = "api-service.model-catalog.svc"
	// importer is the account in model-catalog that may write.
	importerNamespace, importer = "model-catalog", "importer"
	rolloutTimeout              = 3 * time.Minute
)

// Prepare builds what is missing, starts the cluster anew and installs the platform on
// it. The stage is returned with an error too, once there is a cluster to remove.
func Prepare(ctx context.Context, opts Options) (*Stage, error) {
	if err := localcluster.Check(); err != nil {
		return nil, err
	}
	if opts.CacheDir == "" {
		dir, err := localcluster.DefaultCacheDir()
		if err != nil {
			return nil, err
		}
		opts.CacheDir = dir
	}
	s := &Stage{opts: opts, progress: NewProgress(opts.Output)}
	s.progress.Headline("Building what this machine does not have yet")
	tars, library, err := s.build(ctx)
	if err != nil {
		return nil, err
	}
	s.progress.Headline("A Kubernetes with real nodes")
	// One of an earlier run has a node that the cloud took away, and Jobs that are done.
	if err := localcluster.Down(opts.Cluster, s.progress.Writer()); err != nil {
		return nil, fmt.Errorf("remove the cluster of an earlier run: %w", err)
	}
	s.Cluster, err = localcluster.Up(ctx, localcluster.Options{Name: opts.Cluster, Shape: opts.Shape, CacheDir: opts.CacheDir, NVMLLibrary: library, NetworkPolicies: opts.Complete, Progress: s.progress.Writer()})
	if err != nil {
		return nil, fmt.Errorf("start the local cluster: %w", err)
	}
	kubectl, err := s.Cluster.Kubectl()
	if err != nil {
		return s, err
	}
	if err := s.connect(kubectl, s.Cluster.Kubeconfig()); err != nil {
		return s, err
	}
	s.progress.Headline("Spotbench is installed")
	return s, s.install(ctx, tars)
}

// build makes the images and the simulated driver library.
func (s *Stage) build(ctx context.Context) (tars []string, library string, err error) {
	s.progress.Step("the simulated driver library (NVML)")
	library, err = gpusim.Build(ctx, gpusim.NVML, s.opts.Root, filepath.Join(s.opts.CacheDir, "gpusim"))
	if err != nil {
		return nil, "", err
	}
	s.progress.Step("the cluster's programs (Kubernetes, etcd, an S3 server and others; minutes the first time)")
	if err := toolchain.EnsureDebian(ctx, s.progress.Step); err != nil {
		return nil, "", err
	}
	tools, err := toolchain.Ensure(ctx, s.opts.CacheDir, s.progress.Step, append(s.completeTools(), toolchain.MinIO)...)
	if err != nil {
		return nil, "", err
	}
	s.progress.Step("the images of our programs (minutes the first time)")
	out := filepath.Join(s.opts.CacheDir, "demo-images")
	tars, err = images.Build(ctx, images.Options{Source: s.opts.Root, Out: out, Progress: s.progress.Writer()})
	if err != nil {
		return nil, "", err
	}
	minio := filepath.Join(out, "minio.tar")
	if err := images.Static("spotbench.dev/minio:dev", tools.Path(toolchain.MinIO), minio); err != nil {
		return nil, "", err
	}
	complete, err := s.buildComplete(ctx, tools, out)
	return append(append(tars, minio), complete...), library, err
}

// install loads the images, creates the secrets and applies the manifests.
func (s *Stage) install(ctx context.Context, tars []string) error {
	nodes, err := s.Cluster.Nodes(ctx)
	if err != nil {
		return err
	}
	var system, gpu []string
	var address string
	for _, n := range nodes {
		if n.GPU == nil {
			system, address = append(system, n.Name), n.IP.String()
		} else {
			gpu = append(gpu, n.Name)
		}
	}
	if address == "" {
		return errors.New("the cluster's shape has no node without GPUs; the platform's own pods need one")
	}
	s.progress.Step("loading images into the nodes")
	if err := s.load(ctx, tars, system, gpu); err != nil {
		return err
	}
	pair, err := certs.New([]string{catalogName, catalogName + ".cluster.local", "api-service.model-catalog", address}, time.Now())
	if err != nil {
		return err
	}
	s.caPEM = pair.CA
	if err := s.installSecrets(ctx, pair.Cert, pair.Key); err != nil {
		return err
	}
	if err := s.installCompleteSecrets(ctx); err != nil {
		return err
	}
	s.progress.Step("kubectl apply -k %s", s.overlay())
	if err := s.Kubectl.ApplyKustomization(ctx, s.path(s.overlay())); err != nil {
		return err
	}
	if err := WaitRolledOut(ctx, s.Client, s.patience(), s.installed()...); err != nil {
		return err
	}
	s.CatalogURL = fmt.Sprintf("http://%s:%d", address, catalogWebPort)
	s.CatalogTLSURL = fmt.Sprintf("https://%s:%d", address, catalogTLSPort)
	if err := s.connectCatalog(); err != nil {
		return err
	}
	if err := s.awaitCatalog(ctx); err != nil {
		return err
	}
	s.progress.Step("scheduler, node agents and catalog are ready; the catalog is at %s", s.CatalogURL)
	return nil
}

// load puts each image only where its pods can run.
func (s *Stage) load(ctx context.Context, tars, system, gpu []string) error {
	var forSystem, forGPU []string
	for _, tar := range tars {
		name := strings.TrimSuffix(filepath.Base(tar), ".tar")
		switch {
		case slices.Contains(slices.Concat(images.Services(), completePrograms, []string{"scheduler", "catalog-api", "minio"}), name):
			forSystem = append(forSystem, tar)
		case len(s.opts.GPUImages) == 0 || slices.Contains(s.opts.GPUImages, name):
			forGPU = append(forGPU, tar)
		}
	}
	if err := s.Cluster.LoadImagesTo(ctx, system, forSystem...); err != nil {
		return err
	}
	return s.Cluster.LoadImagesTo(ctx, gpu, forGPU...)
}

// connectCatalog makes a client that trusts the catalog's certificate and writes
// with the token of a ServiceAccount, as a job in the cluster would.
func (s *Stage) connectCatalog() error {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(s.caPEM) {
		return errors.New("the catalog's authority is no certificate")
	}
	httpClient := &http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}
	var err error
	s.Catalog, err = client.New(s.CatalogTLSURL, httpClient, func(ctx context.Context) (string, error) {
		seconds := int64(3600)
		request, err := s.Client.CoreV1().ServiceAccounts(importerNamespace).CreateToken(ctx, importer, &authenticationv1.TokenRequest{
			Spec: authenticationv1.TokenRequestSpec{Audiences: []string{client.Audience}, ExpirationSeconds: &seconds}}, metav1.CreateOptions{})
		if err != nil {
			return "", err
		}
		return request.Status.Token, nil
	})
	return err
}

// awaitCatalog waits until the catalog answers at the address that people get.
func (s *Stage) awaitCatalog(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		err := get(ctx, s.CatalogURL+"/readyz")
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the catalog does not answer at %s: %w", s.CatalogURL, err)
		case <-time.After(250 * time.Millisecond):
		}
	}
}

func get(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", resp.Status)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// importReference imports the reference result files, if the data directory has any,
// each as a run of its own, and returns how many results they made.
func (s *Stage) importReference(ctx context.Context) (int, error) {
	dir := s.opts.DataDir
	if dir == "" {
		dir = s.path("../shared/data")
	}
	files, err := filepath.Glob(filepath.Join(dir, "bench-results", "vllm", "*.json"))
	if err != nil {
		return 0, err
	}
	if len(files) == 0 {
		s.progress.Step("no reference results in %s; the README says how to get some (SPOTBENCH_DATA)", dir)
		return 0, nil
	}
	results := 0
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return results, err
		}
		run, err := referenceRun(filepath.Base(file), data)
		if err != nil {
			return results, err
		}
		if _, err := s.Catalog.PutRun(ctx, run.Key, run); err != nil {
			return results, fmt.Errorf("register %s: %w", run.Key, err)
		}
		imported, err := s.Catalog.Import(ctx, run.Key, filepath.Base(file), data)
		if err != nil {
			return results, fmt.Errorf("import %s: %w", file, err)
		}
		results += len(imported.Results)
	}
	s.progress.Step("%d reference results imported from %s", results, dir)
	return results, nil
}
