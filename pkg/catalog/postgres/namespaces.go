// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"fmt"
	"strings"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// within leaves out what belongs to runs that the context may not see. The column is the
// one of the run's key: keys of a namespace stand together in its index.
func (w *where) within(ctx context.Context, column string) {
	namespaces := catalog.NamespacesOf(ctx)
	if !namespaces.Limited() {
		return
	}
	w.limited = true
	either := []string{"false"}
	for _, n := range namespaces {
		w.args = append(w.args, n+"/", n+"0") // '0' is what follows '/'
		either = append(either, fmt.Sprintf("%[1]s >= $%[2]d AND %[1]s < $%[3]d", column, len(w.args)-1, len(w.args)))
	}
	w.conditions = append(w.conditions, "("+strings.Join(either, " OR ")+")")
}

// given are the arguments. What a limited caller may see can be little or nearly all, which
// only the values tell.
func (w *where) given() []any {
	if w.limited {
		return w.planned()
	}
	return w.args
}
