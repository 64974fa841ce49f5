// SPDX-License-Identifier: Apache-2.0

//go:build linux

package localcluster_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/spotbench/spotbench/pkg/localcluster"
)

// askMetadata makes this program, started in a node's network, ask the node's metadata
// service for the path in the variable and print the answer.
const askMetadata = "SPOTBENCH_E2E_ASK_METADATA"

func TestMain(m *testing.M) {
	path := os.Getenv(askMetadata)
	if path == "" {
		os.Exit(m.Run())
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	answer, err := instanceMetadata(ctx, http.MethodPut, "api/token", "X-aws-ec2-metadata-token-ttl-seconds", "60")
	if err == nil {
		answer, err = instanceMetadata(ctx, http.MethodGet, "meta-data/"+path, "X-aws-ec2-metadata-token", answer)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:gocritic // nothing is left to be done
	}
	fmt.Print(answer)
}

func instanceMetadata(ctx context.Context, method, path, header, value string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://169.254.169.254/latest/"+path, nil)
	if err != nil {
		return "", err
	}
	request.Header.Set(header, value)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}

// metadata asks the node's metadata service from the node's own network.
func metadata(t *testing.T, ctx context.Context, c *localcluster.Cluster, node, path string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := c.Nodes(ctx)
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(nodes, func(n localcluster.NodeInfo) bool { return n.Name == node })
	if at < 0 {
		t.Fatalf("no node %s", node)
	}
	cmd := exec.CommandContext(ctx, "nsenter", "--target", strconv.Itoa(nodes[at].PID), "--net", self)
	cmd.Env = append(cmd.Environ(), askMetadata+"="+path)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("metadata %s of %s: %v: %s", path, node, err, stderr.String())
	}
	return string(out)
}
