// SPDX-License-Identifier: Apache-2.0

// Package apiservertest gives tests a real API server without nodes, by the programs of
// the local cluster.
package apiservertest

import (
	"os"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/spotbench/spotbench/pkg/localcluster"
	"github.com/spotbench/spotbench/pkg/localcluster/toolchain"
)

// Programs are where etcd and the API server are, under the names of the variables by which
// envtest finds them. It skips the test where they are not built (`localcluster build`).
func Programs(t *testing.T) map[string]string {
	t.Helper()
	cache, err := localcluster.DefaultCacheDir()
	if err != nil {
		t.Skip("no cache directory:", err)
	}
	tools, err := toolchain.Cached(cache)
	if err != nil {
		t.Fatal(err)
	}
	programs := map[string]string{"TEST_ASSET_ETCD": tools.Path("etcd"), "TEST_ASSET_KUBE_APISERVER": tools.Path("kube-apiserver")}
	for _, at := range programs {
		if _, err := os.Stat(at); err != nil {
			t.Skip("run `localcluster build` first:", err)
		}
	}
	return programs
}

// Start starts an API server that ends with the test.
func Start(t *testing.T) *rest.Config {
	t.Helper()
	for variable, at := range Programs(t) {
		t.Setenv(variable, at)
	}
	env := &envtest.Environment{ControlPlaneStartTimeout: time.Minute}
	config, err := env.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := env.Stop(); err != nil {
			t.Error(err)
		}
	})
	return config
}
