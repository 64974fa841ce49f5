// SPDX-License-Identifier: Apache-2.0

package web_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/spotbench/spotbench/pkg/catalog/web"
	"github.com/spotbench/spotbench/pkg/risk"
)

// chromium starts the real browser, for all tests of a package in turn, or says that
// there is none.
func chromium(t *testing.T) context.Context {
	t.Helper()
	program, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not on this machine (Debian: apt-get install chromium); the pages are not looked at by a browser")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-quic", true), chromedp.Flag("hide-scrollbars", true))
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("chromium does not start: %v", err)
	}
	return ctx
}

// look is how somebody reads the pages.
type look struct {
	name          string
	width, height int64
	dark          bool
}

var looks = []look{{"light", 1360, 900, false}, {"dark", 1360, 900, true}, {"phone", 390, 844, false}, {"phone-dark", 390, 844, true}}

func (l look) emulate() chromedp.Action[chromedp.Void] {
	scheme := "light"
	if l.dark {
		scheme = "dark"
	}
	viewport := []chromedp.EmulateViewportOption{}
	if l.width < 500 {
		viewport = append(viewport, chromedp.EmulateMobile)
	}
	return chromedp.Steps(chromedp.EmulateViewport(l.width, l.height, viewport...),
		call(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}))
}

// call sends a command whose answer says nothing.
func call[P any](command cdp.Command[P, cdp.Empty], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, command, params)
		return err
	})
}

// ask evaluates JavaScript in the page, from outside: the page's policy forbids it scripts
// of its own.
func ask[T any](t *testing.T, ctx context.Context, script string) T {
	t.Helper()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// shown are all pages, by the names of their pictures.
var shown = []struct{ name, path string }{
	{"runs", "/"}, {"run", "/runs/gpu-workloads%2Fqwen-sharegpt-5f0c21aa"}, {"run-cost", "/runs/gpu-workloads%2Fllama-8b-h100-0-10-0"}, {"models", "/models"}, {"model", web.PathOfModel(sweepModel)},
	{"compare-form", "/compare"}, {"compare", "/compare?model=meta-llama/Llama-3.1-8B-Instruct&by=gpuModel&by=engineVersion"}, {"pareto", "/pareto?model=meta-llama/Llama-3.1-8B-Instruct"},
	{"fleet", "/fleet"}, {"savings", "/savings"}, {"fault", "/runs/none"},
}

// serve serves the furnished pages as the catalog does.
func serve(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(web.New(furnished(), risk.Book{}, slog.New(slog.DiscardHandler)))
	t.Cleanup(server.Close)
	return server.URL
}

const (
	axeVersion = "4.14.1"
	// axeIntegrity is npm's own checksum of that version's package.
	axeIntegrity = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
)

// axe is the source of axe-core, of the package that npm fetches once and that is kept in
// the user's cache.
var axe = sync.OnceValues(func() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "spotbench", "axe-core")
	file := filepath.Join(dir, "axe-core-"+axeVersion+".tgz")
	packed, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return "", err
		}
		if out, err := exec.Command("npm", "pack", "--silent", "--pack-destination", dir, "axe-core@"+axeVersion).CombinedOutput(); err != nil {
			return "", fmt.Errorf("npm pack axe-core@%s: %w: %s", axeVersion, err, bytes.TrimSpace(out))
		}
		packed, err = os.ReadFile(file)
	}
	if err != nil {
		return "", err
	}
	sum := sha512.Sum512(packed)
	if got := base64.StdEncoding.EncodeToString(sum[:]); got != axeIntegrity {
		return "", fmt.Errorf("%w: %s has the checksum %s, want %s; remove it", errWrongAxe, file, got, axeIntegrity)
	}
	unzip, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return "", err
	}
	for files := tar.NewReader(unzip); ; {
		header, err := files.Next()
		if err != nil {
			return "", fmt.Errorf("axe.min.js in %s: %w", file, err)
		}
		if header.Name == "package/axe.min.js" {
			source, err := io.ReadAll(files)
			return string(source), err
		}
	}
})

var errWrongAxe = fmt.Errorf("this is not axe-core %s", axeVersion)

// TestPagesHaveNoAccessibilityViolations runs axe-core in Chromium on every page, in light
// and dark, on a desk and on a phone.
func TestPagesHaveNoAccessibilityViolations(t *testing.T) {
	source, err := axe()
	switch {
	case err != nil && bytes.Contains([]byte(err.Error()), []byte(errWrongAxe.Error())):
		t.Fatal(err)
	case err != nil:
		t.Skipf("axe-core %s cannot be had here, so that nobody checks the pages for accessibility: %v", axeVersion, err)
	}
	browser, url := chromium(t), serve(t)
	for _, look := range looks {
		for _, one := range shown {
			t.Run(look.name+" "+one.path, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(browser, time.Minute)
				defer cancel()
				if err := chromedp.Do(ctx, look.emulate(), chromedp.Navigate(url+one.path)); err != nil {
					t.Fatal(err)
				}
				ask[int](t, ctx, source+";0")
				result := ask[struct {
					Passes     int
					Violations []struct {
						ID    string
						Nodes []struct{ HTML, FailureSummary string }
					}
				}](t, ctx, `axe.run(document, {resultTypes: ["violations"]}).then(r => ({passes: r.passes.length, violations: r.violations}))`)
				if result.Passes < 10 {
					t.Errorf("axe passed only %d rules", result.Passes)
				}
				for _, v := range result.Violations {
					for _, n := range v.Nodes {
						t.Errorf("%s: %s\n%s", v.ID, n.HTML, n.FailureSummary)
					}
				}
			})
		}
	}
}

// TestPagesFitTheirWidthAndPaintAtOnce: nothing sticks out sideways, with JavaScript off,
// and the first paint is soon.
func TestPagesFitTheirWidthAndPaintAtOnce(t *testing.T) {
	browser, url := chromium(t), serve(t)
	for _, look := range looks[1:3] {
		for _, one := range shown {
			t.Run(look.name+" "+one.path, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(browser, time.Minute)
				defer cancel()
				if err := chromedp.Do(ctx, look.emulate(), call(emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}), chromedp.Navigate(url+one.path),
					call(emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{})); err != nil {
					t.Fatal(err)
				}
				heading := ask[string](t, ctx, `document.querySelector("h1").textContent`)
				wide := ask[float64](t, ctx, `document.documentElement.scrollWidth - document.documentElement.clientWidth`)
				// What scrolls on its own may stick out of it.
				boxes := ask[[]string](t, ctx, `[...document.querySelectorAll("main *, header *")].filter(e => !e.closest(".scroll, .hidden, svg") && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + "." + e.className)`)
				painted := ask[float64](t, ctx, `new Promise(done => { const look = () => { const paint = performance.getEntriesByName("first-contentful-paint")[0]; paint ? done(paint.startTime) : setTimeout(look, 5) }; look() })`)
				if wide > 0 || len(boxes) > 0 || heading == "" {
					t.Errorf("%v px stick out: %v; heading %q", wide, boxes, heading)
				}
				// The bound is that of a loaded machine under the race detector; the figure is for people.
				if painted > 2000 {
					t.Errorf("first paint after %v ms", painted)
				}
				t.Logf("first paint after %.0f ms", painted)
			})
		}
	}
}

// TestThePagesAreUsedWithTheKeyboardAlone: the first stop leads past the navigation, two
// runs are ticked and compared.
func TestThePagesAreUsedWithTheKeyboardAlone(t *testing.T) {
	browser, url := chromium(t), serve(t)
	ctx, cancel := context.WithTimeout(browser, time.Minute)
	defer cancel()
	focused := func() string {
		return ask[string](t, ctx, `document.activeElement.textContent.trim() || document.activeElement.type || document.activeElement.tagName`)
	}
	press := func(key string) {
		t.Helper()
		if err := chromedp.Do(ctx, chromedp.KeyEvent(key)); err != nil {
			t.Fatal(err)
		}
	}
	if err := chromedp.Do(ctx, looks[0].emulate(), chromedp.Navigate(url+"/")); err != nil {
		t.Fatal(err)
	}
	press(kb.Tab)
	if first := focused(); first != "Skip to the content" {
		t.Errorf("the first stop is %q", first)
	}
	ticked, last := 0, ""
	for range 80 {
		press(kb.Tab)
		if last = focused(); last == "checkbox" && ticked < 2 {
			press(" ")
			ticked++
		}
		if last == "Compare the ticked runs" {
			break
		}
	}
	press(kb.Enter)
	if err := chromedp.Do(ctx, chromedp.WaitVisible(chromedp.CSS(".configurations"))); err != nil {
		t.Fatalf("%d runs ticked, last at %q: %v", ticked, last, err)
	}
	if runs := ask[int](t, ctx, `document.querySelectorAll(".configurations li").length`); runs != 2 {
		t.Errorf("%d runs are compared", runs)
	}
}

// TestScreenshots keeps pictures of the pages, whole, for people to look at:
// SPOTBENCH_SCREENSHOTS names the directory.
func TestScreenshots(t *testing.T) {
	dir := os.Getenv("SPOTBENCH_SCREENSHOTS")
	if dir == "" {
		t.Skip("set SPOTBENCH_SCREENSHOTS to a directory to keep pictures of the pages there (needs chromium)")
	}
	browser, url := chromium(t), serve(t)
	for _, look := range looks {
		for _, one := range shown {
			ctx, cancel := context.WithTimeout(browser, time.Minute)
			if err := chromedp.Do(ctx, look.emulate(), chromedp.Navigate(url+one.path)); err != nil {
				t.Fatal(err)
			}
			// Long lists repeat themselves; what is further down is not worth its bytes.
			height := min(3000, ask[float64](t, ctx, `document.documentElement.scrollHeight`))
			beyond := true
			picture, err := chromedp.Run(ctx, func(ctx context.Context, target *chromedp.Target) ([]byte, error) {
				taken, err := cdp.Call(ctx, target, page.CaptureScreenshot, page.CaptureScreenshotParams{CaptureBeyondViewport: &beyond, Clip: &page.Viewport{Width: float64(look.width), Height: height, Scale: 1}})
				if err != nil {
					return nil, err
				}
				return taken.Data, nil
			})
			cancel()
			if err != nil || len(picture) < 5000 {
				t.Fatalf("%s: %v, %d bytes", one.path, err, len(picture))
			}
			name := one.name + "-" + look.name + ".png"
			if look.name == "light" {
				name = one.name + ".png"
			}
			if err := os.WriteFile(filepath.Join(dir, name), picture, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}
