// SPDX-License-Identifier: Apache-2.0

package images_test

import (
	"io"
	"strings"
	"testing"

	"github.com/spotbench/spotbench/pkg/images"
)

func TestAServiceThatThereIsNotIsNamedWithThoseThatThereAre(t *testing.T) {
	_, err := images.BuildServices(t.Context(), t.TempDir(), io.Discard, "mysql")
	if err == nil || !strings.Contains(err.Error(), "mysql") || !strings.Contains(err.Error(), "redis") {
		t.Errorf("error %v, want one with mysql and with redis", err)
	}
}
