// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"fmt"
	"strings"
	"time"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// sortable is something other than its time that a list can be sorted by.
type sortable struct {
	// column has it, of this type of PostgreSQL.
	column, kind string
	// indexed says that an index has it, for lists without any filter.
	indexed bool
}

const (
	float   = "double precision"
	integer = "bigint"
	instant = "timestamptz"
	text    = "text"
)

// What lists can be sorted by, under the names that the API has for it.
var (
	sortsOfRuns = map[string]sortable{
		"finishedAt": {"finished_at", instant, true}, "key": {"key", text, true}, "model": {"model", text, true}, "benchmark": {"benchmark", text, true},
		"gpuModel": {"gpu_model", text, true}, "results": {"results", integer, true}, "usdPerHour": {"usd_per_hour", float, true},
	}
	sortsOfResults = map[string]sortable{
		"requestThroughput": {"requests_per_second", float, true}, "outputThroughput": {"output_tokens_per_second", float, true}, "ttftP99Ms": {"ttft_p99_ms", float, true}, "tpotP99Ms": {"tpot_p99_ms", float, true},
		"totalTokenThroughput": {"total_tokens_per_second", float, false}, "ttftMedianMs": {"ttft_median_ms", float, false}, "tpotMedianMs": {"tpot_median_ms", float, false},
		"e2elMedianMs": {"e2el_median_ms", float, false}, "e2elP99Ms": {"e2el_p99_ms", float, false}, "concurrency": {"concurrency", integer, false},
		"requests": {"requests", integer, false}, "completed": {"completed", integer, false}, "outputTokens": {"output_tokens", integer, false}, "durationSeconds": {"duration_seconds", float, false},
	}
	sortsOfInterruptions = map[string]sortable{"workLostSeconds": {"work_lost_seconds", float, true}, "node": {"node", text, true}, "kind": {"kind", text, true}}
	sortsOfInstances     = map[string]sortable{"seenAt": {"seen_at", instant, true}, "noticeAt": {"notice_at", instant, true}, "node": {"node", text, true}, "instanceType": {"instance_type", text, true}}
)

// ordering is how a list is sorted: by its time or something else, and then by the
// columns that name a row, so that no two rows have one place.
type ordering struct {
	// by is "" for the time.
	by string
	sortable
	names     string
	ascending bool
}

// orderOf is the ordering that a query asks for. The list's time has a name as well.
func orderOf(query, name, column, names string, ascending bool, sorts map[string]sortable) (ordering, error) {
	o := ordering{names: names, ascending: ascending, sortable: sortable{column: column, kind: instant, indexed: true}}
	if query == "" || query == name {
		return o, nil
	}
	s, ok := sorts[query]
	if !ok {
		return o, &catalog.InvalidField{Name: "sort", Problem: fmt.Sprintf("%q is not what this list can be sorted by", query)}
	}
	o.by, o.sortable = query, s
	return o, nil
}

func (o ordering) columns() string { return o.column + ", " + o.names }

// value is the column that tells where in the list a row stands.
func (o ordering) value() string {
	if o.by == "" {
		return o.column
	}
	// As text it is exact, numbers too. Under the column's own name the list would be
	// sorted by the text.
	return o.column + "::text AS place"
}

// has is the condition that a row has what the list is sorted by.
func (o ordering) has() string {
	switch {
	case o.kind == text:
		return o.column + " <> ''"
	case o.by == "usdPerHour":
		return o.column + " > 0" // 0 is a price that is not known
	}
	return o.column + " IS NOT NULL"
}

// sortBy leaves out what has no place in the list, and what is on the pages before the
// token's, which names a row by so many keys.
func (w *where) sortBy(o ordering, token string, names func(keys []string) ([]any, error), count int) error {
	if o.by != "" {
		w.conditions = append(w.conditions, o.has())
	}
	if token == "" {
		return nil
	}
	p, err := parseToken(token, count, o.ascending)
	if err == nil && p.By != o.by {
		err = unknownToken(token)
	}
	if err != nil {
		return err
	}
	row, err := names(p.Keys)
	if err != nil {
		return unknownToken(token)
	}
	if o.by == "" {
		w.after(o.columns(), o.ascending, append([]any{p.At}, row...)...)
		return nil
	}
	first := len(w.args) + 1
	w.after(o.columns(), o.ascending, append([]any{p.Value}, row...)...)
	last := len(w.conditions) - 1
	// The value came as text and is compared as what it is.
	w.conditions[last] = strings.Replace(w.conditions[last], fmt.Sprintf("($%d", first), fmt.Sprintf("($%d::text::%s", first, o.kind), 1)
	return nil
}

// asText are the names of a row that are text in the database too.
func asText(keys []string) ([]any, error) {
	names := make([]any, len(keys))
	for n, key := range keys {
		names[n] = key
	}
	return names, nil
}

// place is where a row stands in a list.
type place struct {
	at    time.Time
	value string
}

// into is where the ordering's value is scanned to.
func (o ordering) into(p *place) any {
	if o.by == "" {
		return &p.at
	}
	return &p.value
}

// token is that of a page which ends with the row.
func (o ordering) token(p place, keys ...string) string {
	return position{By: o.by, At: p.at, Value: p.value, Keys: keys, OldestFirst: o.ascending}.token()
}
