// SPDX-License-Identifier: Apache-2.0

package httpapi_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/cache"
	"github.com/spotbench/spotbench/pkg/catalog/httpapi"
	"github.com/spotbench/spotbench/pkg/debian"
)

// redis is a real server on a socket.
type redis struct {
	cmd    *exec.Cmd
	socket string
}

func newRedis(t *testing.T) *redis {
	t.Helper()
	missing := func() []string {
		if _, err := exec.LookPath("redis-server"); err != nil {
			return []string{"redis-server"}
		}
		return nil
	}
	if err := debian.Install(t.Context(), missing, func([]string) {}); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "redis-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	r := &redis{socket: filepath.Join(dir, "s")}
	r.start(t)
	t.Cleanup(r.kill)
	return r
}

func (r *redis) start(t *testing.T) {
	t.Helper()
	r.cmd = exec.CommandContext(context.WithoutCancel(t.Context()), "redis-server", "--port", "0", "--unixsocket", r.socket, "--save", "", "--appendonly", "no")
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

func (r *redis) kill() {
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
}

// counting counts how often the store is asked for models, which takes a while.
type counting struct {
	httpapi.Store
	asked atomic.Int64
}

func (c *counting) ListModels(ctx context.Context) ([]catalog.Model, error) {
	c.asked.Add(1)
	time.Sleep(20 * time.Millisecond)
	return c.Store.ListModels(ctx)
}

// cached is a server with a cache of its own on the Redis.
type cached struct {
	*stage
	store    *counting
	registry *prometheus.Registry
}

func newCached(t *testing.T, r *redis) *cached {
	t.Helper()
	c := &cached{registry: prometheus.NewRegistry()}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	t.Cleanup(cancel)
	c.stage = newStage(t, func(o *httpapi.Options) {
		answers, err := cache.Open(ctx, "unix://"+r.socket, 5*time.Second, c.registry, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		c.store = &counting{Store: o.Store}
		o.Store, o.Cache = c.store, answers
	})
	return c
}

// outcome is how many reads the cache answered so.
func (c *cached) outcome(t *testing.T, outcome string) (count float64) {
	t.Helper()
	families, err := c.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetType() == dto.MetricType_COUNTER && m.GetLabel()[0].GetValue() == outcome {
				return m.GetCounter().GetValue()
			}
			if f.GetType() == dto.MetricType_GAUGE && outcome == "ratio" {
				return m.GetGauge().GetValue()
			}
		}
	}
	return 0
}

// hit reads until the cache answers.
func (c *cached) hit(t *testing.T, path string) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		before := c.outcome(t, "hit")
		if c.read(t, path); c.outcome(t, "hit") > before {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is never answered from the cache", path)
		}
	}
}

func (c *cached) read(t *testing.T, path string) string {
	t.Helper()
	resp, body := c.send(t, "GET", path, "", "")
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %s", path, resp.Status, body)
	}
	return body
}

// rename gives the run another node, which its detail and lists show.
func (c *cached) rename(t *testing.T, run, node string) {
	t.Helper()
	if resp, body := c.send(t, "PUT", "/v1/runs/"+run+"/segments/u", c.writer, fmt.Sprintf(`{"node":%q}`, node)); resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s", resp.Status, body)
	}
}

// endedRun is a run that is over, so that it may be kept.
func (c *cached) endedRun(t *testing.T) string {
	t.Helper()
	run := fmt.Sprintf("cached%%2Fr%d", time.Now().UnixNano())
	if resp, body := c.send(t, "PUT", "/v1/runs/"+run, c.writer, `{"model":"org/kept","status":"succeeded"}`); resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s", resp.Status, body)
	}
	return run
}

func TestAKeptAnswerIsTheSameAnswerAndNoLongerThanItIsTrue(t *testing.T) {
	r := newRedis(t)
	a, b := newCached(t, r), newCached(t, r)
	run := a.endedRun(t)
	path := "/v1/runs/" + run
	a.rename(t, run, "first")
	a.hit(t, path)
	kept, body := a.send(t, "GET", path, "", "")
	plain := newStage(t)
	direct, want := plain.send(t, "GET", path, "", "")
	for _, name := range []string{"ETag", "Content-Type", "Cache-Control", "X-Content-Type-Options"} {
		if kept.Header.Get(name) != direct.Header.Get(name) {
			t.Errorf("%s is %q, without the cache %q", name, kept.Header.Get(name), direct.Header.Get(name))
		}
	}
	if body != want {
		t.Errorf("kept %s\nwant %s", body, want)
	}
	if resp, body := a.send(t, "GET", path, "", "", "If-None-Match", kept.Header.Get("ETag")); resp.StatusCode != http.StatusNotModified || body != "" {
		t.Errorf("with its ETag: %s %q", resp.Status, body)
	}
	if a.outcome(t, "ratio") <= 0 || a.outcome(t, "ratio") > 1 {
		t.Errorf("hit ratio %v", a.outcome(t, "ratio"))
	}
	// A write through the one is seen at once through itself, and through the other as
	// soon as Redis has told it; at once by whoever sends the write's position.
	b.hit(t, path)
	for n := range 50 {
		node := fmt.Sprintf("node-%d", n)
		a.rename(t, run, node)
		if got := a.read(t, path); !strings.Contains(got, node) {
			t.Fatalf("the writer's server still answers %s after write %d", got, n)
		}
		if _, got := b.send(t, "GET", path, "", "", "Catalog-Position", "0/1"); !strings.Contains(got, node) {
			t.Fatalf("the other server answers a caller that wrote %s after write %d", got, n)
		}
	}
	a.rename(t, run, "last")
	for deadline := time.Now().Add(time.Second); !strings.Contains(b.read(t, path), "last"); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the other server was not told of a write within a second")
		}
	}
	other := a.endedRun(t)
	a.hit(t, path)
	before := a.outcome(t, "hit")
	a.rename(t, other, "elsewhere")
	if a.read(t, path); a.outcome(t, "hit") != before+1 {
		t.Error("a write of another run made this one's answer out of date")
	}
}

// crowd asks for the models so many times at once, and wants the same of each answer.
func (c *cached) crowd(t *testing.T, readers, status int, contentType string) {
	t.Helper()
	var all sync.WaitGroup
	for range readers {
		all.Go(func() {
			resp, err := http.Get(c.url + "/v1/models")
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if resp.StatusCode != status || resp.Header.Get("Content-Type") != contentType {
				t.Error(resp.Status, resp.Header)
			}
		})
	}
	all.Wait()
}

func TestManyWhoAskAtOnceAskTheDatabaseOnce(t *testing.T) {
	c := newCached(t, newRedis(t))
	c.hit(t, "/v1/models")
	c.endedRun(t) // the list is out of date
	before, bypassed := c.store.asked.Load(), c.outcome(t, "bypass")
	c.crowd(t, 100, http.StatusOK, "application/json")
	// Where Redis took too long to answer, the database was asked in its stead.
	if asked, slow := c.store.asked.Load()-before, int64(c.outcome(t, "bypass")-bypassed); asked > 1+slow {
		t.Errorf("100 readers at once asked the database %d times, %d of them for Redis being slow", asked, slow)
	}
}

// panicking has a store that panics when it is asked for models.
type panicking struct{ httpapi.Store }

func (panicking) ListModels(context.Context) ([]catalog.Model, error) { panic("broken") }

func TestAPanicUnderTheCacheIsA500ForAllWhoAskedAndNoEnd(t *testing.T) {
	c := newCached(t, newRedis(t))
	run := c.endedRun(t)
	c.hit(t, "/v1/runs/"+run)
	c.store.Store = panicking{c.store.Store}
	c.crowd(t, 5, http.StatusInternalServerError, "application/problem+json")
	c.read(t, "/v1/runs/"+run)
}

func TestARunIsTheSameHoweverItsAddressIsEscaped(t *testing.T) {
	c := newCached(t, newRedis(t))
	run := c.endedRun(t)
	c.rename(t, run, "first")
	for _, path := range []string{"/v1/runs/" + strings.Replace(run, "%2F", "%2f", 1), "/v1/runs/" + strings.Replace(run, "c", "%63", 1)} {
		c.hit(t, path)
		node := fmt.Sprintf("node-%d", time.Now().UnixNano())
		c.rename(t, run, node)
		if got := c.read(t, path); !strings.Contains(got, node) {
			t.Errorf("%s is still answered by %s", path, got)
		}
	}
}

func TestRedisForgetsGenerationsThatNobodyAsksFor(t *testing.T) {
	r := newRedis(t)
	c := newCached(t, r)
	run := c.endedRun(t) // one is begun by a write, one by a read
	c.hit(t, "/v1/runs/"+run)
	ask := func(args ...string) string {
		out, err := exec.CommandContext(t.Context(), "redis-cli", append([]string{"-s", r.socket}, args...)...).Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	keys := strings.Fields(ask("keys", "*"))
	if len(keys) < 3 {
		t.Errorf("only %q are there", keys)
	}
	for _, key := range keys {
		if life := ask("ttl", key); strings.HasPrefix(life, "-") {
			t.Errorf("%s has no end: %s", key, life)
		}
	}
}

// leaving has a store that writes, and whose caller is gone when it has.
type leaving struct{ httpapi.Store }

func (l leaving) PutRun(ctx context.Context, key string, run catalog.Run, revision int64) (catalog.Run, int64, error) {
	if _, _, err := l.Store.PutRun(ctx, key, run, revision); err != nil {
		return catalog.Run{}, 0, err
	}
	return catalog.Run{}, 0, context.Canceled
}

func TestAWriteWhoseCallerWentAwayMakesAnswersOutOfDate(t *testing.T) {
	c := newCached(t, newRedis(t))
	run := c.endedRun(t)
	c.hit(t, "/v1/runs/"+run)
	c.store.Store = leaving{c.store.Store}
	if resp, body := c.send(t, "PUT", "/v1/runs/"+run, c.writer, `{"engine":"late"}`); resp.StatusCode != 499 {
		t.Fatalf("%s %s", resp.Status, body)
	}
	if got := c.read(t, "/v1/runs/"+run); !strings.Contains(got, "late") {
		t.Errorf("the answer is that of before the write: %s", got)
	}
}

// TestWithoutRedisEverythingIsAnsweredAndNothingIsOld kills Redis, and stops it, under
// reads and writes.
func TestWithoutRedisEverythingIsAnsweredAndNothingIsOld(t *testing.T) {
	for name, outage := range map[string]struct{ begin, end func(t *testing.T, r *redis) }{
		"killed and started again": {func(_ *testing.T, r *redis) { r.kill() }, func(t *testing.T, r *redis) { r.start(t) }},
		"stopped and continued": {
			func(t *testing.T, r *redis) { signal(t, r, syscall.SIGSTOP) },
			func(t *testing.T, r *redis) { signal(t, r, syscall.SIGCONT) }},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRedis(t)
			c := newCached(t, r)
			run := c.endedRun(t)
			path := "/v1/runs/" + run
			c.rename(t, run, "before")
			c.hit(t, path)
			outage.begin(t, r)
			slowest := time.Duration(0)
			for n := range 12 {
				node := fmt.Sprintf("without-%d", n)
				if n%4 == 0 {
					c.rename(t, run, node)
				} else {
					node = fmt.Sprintf("without-%d", n/4*4)
				}
				began := time.Now()
				if got := c.read(t, path); !strings.Contains(got, node) {
					t.Fatalf("read %d is old: %s", n, got)
				}
				slowest = max(slowest, time.Since(began))
			}
			if slowest > time.Second {
				t.Errorf("the slowest read took %v", slowest)
			}
			outage.end(t, r)
			c.hit(t, path)
			if got := c.read(t, path); !strings.Contains(got, "without-8") {
				t.Errorf("after the outage the cache answers %s", got)
			}
		})
	}
}

func signal(t *testing.T, r *redis, s syscall.Signal) {
	t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func TestACacheWithoutAServerIsNoErrorAndABadURLIsOneWithoutItsPassword(t *testing.T) {
	c := newCached(t, &redis{socket: "/none"})
	c.read(t, "/v1/models")
	if c.outcome(t, "bypass") != 1 {
		t.Error("the read did not pass the cache by")
	}
	if _, err := cache.Open(t.Context(), "redis://:hunter2@host:port/x", time.Second, prometheus.NewRegistry(), slog.New(slog.DiscardHandler)); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
}
