// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"time"

	"github.com/google/uuid"
)

// identities is the namespace of the name-based UUIDs of imports and results.
var identities = uuid.MustParse("7a1d2f7c-6f0e-5b7e-9a55-5d5c3d0f4c11")

// NewImport describes the import of content into a run and gives the import and
// its results their names. These follow from the run and the content alone, so
// that the same file imported twice, or by two writers at once, is one import.
func NewImport(runKey, file, format string, content []byte, results []Result, now time.Time) (Import, []Result) {
	sum := sha256.Sum256(content)
	digest := hex.EncodeToString(sum[:])
	imported := Import{
		ID:     uuid.NewSHA1(identities, []byte("import\x00"+runKey+"\x00"+digest)).String(),
		RunKey: runKey, File: file, Format: format, SHA256: digest, Bytes: int64(len(content)), ImportedAt: now.UTC(),
		Results: make([]string, 0, len(results)),
	}
	named := make([]Result, len(results))
	for n, r := range results {
		r.ID = uuid.NewSHA1(identities, []byte("result\x00"+imported.ID+"\x00"+strconv.Itoa(n))).String()
		r.ImportID, r.RunKey, r.File, r.Format = imported.ID, runKey, file, format
		imported.Results = append(imported.Results, r.ID)
		named[n] = r
	}
	return imported, named
}
