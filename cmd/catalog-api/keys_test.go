// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spotbench/spotbench/pkg/catalog/certs"
	"github.com/spotbench/spotbench/pkg/catalog/client"
)

func TestTheFirstKeyIsMadeInTheDatabaseAndOpensACatalogThatIsClosed(t *testing.T) {
	dir := dataDir(t)
	log, _ := running(t, "serve", "--data-dir", dir, "--listen", "127.0.0.1:0", "--listen-read-only", "127.0.0.1:0", "--read-access", "token")
	secure, plain := addresses(t, log)
	trusting, err := client.Trusting(filepath.Join(dir, "tls", certs.CAFile), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	database := "postgres://catalog@/catalog?host=" + dir + "/socket"
	ask := func(base, path, key string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if key != "" {
			req.Header.Set("Authorization", "Bearer "+key)
		}
		resp, err := trusting.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	get := func(path, key string) int { return ask("https://"+secure, path, key) }
	keys := func(args ...string) string {
		t.Helper()
		out, err := execute(t.Context(), append(append([]string{"keys"}, args...), "--database-url", database)...)
		if err != nil {
			t.Fatal(err, out)
		}
		return out
	}
	secret := regexp.MustCompile(`sbk_\S+`)
	reader := secret.FindString(keys("create", "ada", "--role", "read", "--expires", "1h"))
	admin := secret.FindString(keys("create", "root", "--role", "admin"))
	for _, tt := range []struct {
		path, key string
		want      int
	}{
		{"/v1/runs", "", http.StatusUnauthorized}, {"/", "", http.StatusUnauthorized}, {"/v1/runs", reader, http.StatusOK},
		{"/v1/audit", reader, http.StatusForbidden}, {"/v1/audit", admin, http.StatusOK},
	} {
		if got := get(tt.path, tt.key); got != tt.want {
			t.Errorf("%s with key %.8q: %d, want %d", tt.path, tt.key, got, tt.want)
		}
	}
	for path, want := range map[string]int{"/v1/runs": http.StatusOK, "/v1/audit": http.StatusForbidden} {
		if got := ask("http://"+plain, path, admin); got != want {
			t.Errorf("%s in plain HTTP: %d, want %d", path, got, want)
		}
	}
	if rotated := secret.FindString(keys("rotate", "ada")); get("/v1/runs", rotated) != http.StatusOK || rotated == reader {
		t.Error("a rotated key does not work")
	}
	if _, err := execute(t.Context(), "keys", "create", "ada", "--database-url", database); err == nil || !strings.Contains(err.Error(), "rotate it") {
		t.Errorf("a second key of the name: %v", err)
	}
	team := secret.FindString(keys("create", "team", "--role", "write", "--namespaces", "team-a,shared"))
	for path, want := range map[string]int{"/v1/runs/team-a%2Frun": http.StatusOK, "/v1/runs/shared%2Frun": http.StatusOK, "/v1/runs/team-b%2Frun": http.StatusForbidden} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "https://"+secure+path, strings.NewReader(`{"model":"m"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+team)
		req.Header.Set("Content-Type", "application/json")
		resp, err := trusting.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("PUT %s with a key for team-a and shared: %s, want %d", path, resp.Status, want)
		}
	}
	if _, err := execute(t.Context(), "keys", "create", "boss", "--role", "admin", "--namespaces", "team-a", "--database-url", database); err == nil || !strings.Contains(err.Error(), "namespaces") {
		t.Errorf("an administrator of one namespace: %v", err)
	}
	keys("revoke", "ada")
	list := keys("list")
	if !regexp.MustCompile(`(?m)^team +write +team-a, shared +works `).MatchString(list) {
		t.Errorf("the list does not have the namespaces of a key:\n%s", list)
	}
	if !regexp.MustCompile(`(?m)^ada +read +all namespaces +revoked .* cli:`).MatchString(list) || !regexp.MustCompile(`(?m)^root +admin +all namespaces +works `).MatchString(list) || strings.Contains(list, admin) {
		t.Errorf("the list is\n%s", list)
	}
}
