// SPDX-License-Identifier: Apache-2.0

package checkpoint_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spotbench/spotbench/pkg/checkpoint"
)

// key makes one of 32 equal bytes.
func key(t testing.TB, hex string) checkpoint.Key {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key")
	write(t, filepath.Dir(file), "key", strings.Repeat(hex, 32)+"\n")
	k, err := checkpoint.ReadKey(file)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func openWith(t testing.TB, dir string, key checkpoint.Key) *checkpoint.Store {
	t.Helper()
	s, err := checkpoint.Open(t.Context(), checkpoint.Options{URL: "file://" + dir, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// names are those of all objects of a store.
func names(t testing.TB, store string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, path := range objects(t, store, "_chunks/*/*") {
		found[filepath.Base(path)] = true
	}
	return found
}

func TestAnEncryptedStoreTellsNothing(t *testing.T) {
	files := t.TempDir()
	const secret = "the weights nobody may know"
	write(t, files, "secret-name", strings.Repeat(secret, 100_000))
	write(t, files, "small", secret)
	one, two, again, plain := t.TempDir(), t.TempDir(), t.TempDir(), t.TempDir()
	save(t, openWith(t, one, key(t, "01")), files)
	save(t, openWith(t, two, key(t, "02")), files)
	save(t, openWith(t, again, key(t, "01")), files)
	save(t, openWith(t, plain, checkpoint.Key{}), files)
	for name := range names(t, one) {
		if names(t, two)[name] || names(t, plain)[name] {
			t.Errorf("chunk %s has the same name under another key: it tells that the content is equal", name)
		}
		if !names(t, again)[name] {
			t.Errorf("chunk %s has another name under the same key: it would be sent again", name)
		}
	}
	err := filepath.WalkDir(one, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte("weights")) || bytes.Contains(data, []byte("secret-name")) {
			t.Errorf("%s has plain text", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	restoresTo(t, openWith(t, one, key(t, "01")), files)
	// Of two runs of one key neither.
	s := openWith(t, one, key(t, "01"))
	if _, err := s.Save(t.Context(), "other/run", files, checkpoint.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	others, _ := filepath.Glob(filepath.Join(one, "other/run/_chunks/*/*"))
	for _, path := range others {
		if names(t, one)[filepath.Base(path)] {
			t.Errorf("chunk %s has the same name in two runs", path)
		}
	}
}

func TestAWrongKeyIsSaidAndNotTakenForDamage(t *testing.T) {
	dir, files := t.TempDir(), t.TempDir()
	write(t, files, "f", "x")
	save(t, openWith(t, dir, checkpoint.Key{}), files)
	save(t, openWith(t, dir, key(t, "01")), files)
	for name, s := range map[string]*checkpoint.Store{"another key": openWith(t, dir, key(t, "02")), "no key": openWith(t, dir, checkpoint.Key{})} {
		into := t.TempDir()
		_, found, err := s.Restore(t.Context(), run, into, checkpoint.RestoreOptions{})
		if found || !errors.Is(err, checkpoint.ErrKey) || errors.Is(err, checkpoint.ErrDamaged) || !strings.Contains(err.Error(), "encrypted with key") {
			t.Errorf("%s: restored %v, error %v: it must not fall back to an older generation", name, found, err)
		}
		if _, _, err := s.Latest(t.Context(), run); !errors.Is(err, checkpoint.ErrKey) {
			t.Errorf("%s: Latest: %v", name, err)
		}
		infos, err := s.List(t.Context(), run)
		if err != nil || !errors.Is(infos[0].Err, checkpoint.ErrKey) {
			t.Errorf("%s: List: %v, %v", name, infos, err)
		}
		if _, err := s.Prune(t.Context(), run, false); !errors.Is(err, checkpoint.ErrKey) {
			t.Errorf("%s: Prune: %v: what it cannot read it must not remove", name, err)
		}
	}
	// A new key begins anew, with the next number.
	s := openWith(t, dir, key(t, "02"))
	if got := save(t, s, files); got.Number != 3 || got.Uploaded == 0 {
		t.Errorf("%+v, want generation 3, sent whole", got)
	}
	restoresTo(t, s, files)
}

func TestAnEncryptedObjectUnderAnotherNameIsDamage(t *testing.T) {
	dir, files := t.TempDir(), t.TempDir()
	s := openWith(t, dir, key(t, "01"))
	write(t, files, "a", strings.Repeat("a", 1000))
	save(t, s, files)
	write(t, files, "a", strings.Repeat("b", 1000))
	save(t, s, files)
	chunks := objects(t, dir, "_chunks/*/*")
	data, err := os.ReadFile(chunks[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(chunks[1], data, 0o600); err != nil {
		t.Fatal(err)
	}
	bad := 0
	for _, n := range []int64{1, 2} {
		if err := s.Verify(t.Context(), run, n); errors.Is(err, checkpoint.ErrDamaged) {
			bad++
		} else if err != nil {
			t.Error(err)
		}
	}
	if bad != 1 {
		t.Errorf("%d generations are damaged, want 1", bad)
	}
}

func TestAKeyFileThatIsNoneIsSaid(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"short": "0123", "text": "a password that somebody likes", "long": strings.Repeat("00", 33), "empty": ""} {
		write(t, dir, name, content)
		if _, err := checkpoint.ReadKey(filepath.Join(dir, name)); err == nil || !strings.Contains(err.Error(), "openssl rand -hex 32") || !strings.Contains(err.Error(), name) || content != "" && strings.Contains(err.Error(), content) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := checkpoint.ReadKey(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	write(t, dir, "base64", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
	if _, err := checkpoint.ReadKey(filepath.Join(dir, "base64")); err != nil {
		t.Error(err)
	}
}
