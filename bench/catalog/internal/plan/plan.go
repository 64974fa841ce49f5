// SPDX-License-Identifier: Apache-2.0

// Package plan reads what PostgreSQL's auto_explain says of the statements that
// the catalog itself sends, so that no copy of them is explained in their stead.
package plan

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"sync"
)

// Traced is the address of a database with auto_explain on for every connection;
// the role must be a superuser.
func Traced(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", fmt.Errorf("database URL: %w", err)
	}
	query := u.Query()
	query.Set("options", "-c session_preload_libraries=auto_explain -c auto_explain.log_min_duration=0 -c auto_explain.log_analyze=on -c auto_explain.log_format=json -c auto_explain.log_level=notice")
	u.RawQuery = strings.ReplaceAll(query.Encode(), "+", "%20") // libpq and pgx do not read + as a space
	return u.String(), nil
}

// Plan is what a statement did.
type Plan struct {
	Query string
	// Milliseconds is how long it took.
	Milliseconds float64
	// Scanned are tables that were read from end to end.
	Scanned []string
	// Indexes are those that were used.
	Indexes []string
	// Read is the number of rows that were looked at in tables and indexes.
	Read float64
}

// node is one step of a plan.
type node struct {
	Type     string  `json:"Node Type"`
	Relation string  `json:"Relation Name"`
	Index    string  `json:"Index Name"`
	Rows     float64 `json:"Actual Rows"`
	Loops    float64 `json:"Actual Loops"`
	Filtered float64 `json:"Rows Removed by Filter"`
	Recheck  float64 `json:"Rows Removed by Index Recheck"`
	Time     float64 `json:"Actual Total Time"`
	Plans    []node  `json:"Plans"`
}

func (p *Plan) add(n node) {
	if strings.HasSuffix(n.Type, "Scan") && (n.Relation != "" || n.Index != "") {
		p.Read += (n.Rows + n.Filtered + n.Recheck) * n.Loops
	}
	if n.Type == "Seq Scan" {
		p.Scanned = append(p.Scanned, n.Relation)
	}
	if n.Index != "" {
		p.Indexes = append(p.Indexes, n.Index)
	}
	for _, child := range n.Plans {
		p.add(child)
	}
}

// parse reads a message of auto_explain; others are not ok.
func parse(message string) (p Plan, ok bool, err error) {
	_, text, found := strings.Cut(message, "plan:\n")
	if !found {
		return p, false, nil
	}
	var told struct {
		Query string `json:"Query Text"`
		Plan  node
	}
	if err := json.Unmarshal([]byte(text), &told); err != nil {
		return p, false, fmt.Errorf("auto_explain: %w", err)
	}
	p = Plan{Query: told.Query, Milliseconds: told.Plan.Time}
	p.add(told.Plan)
	return p, true, nil
}

// Recorder collects plans; its Notice is for postgres.Options.
type Recorder struct {
	mu    sync.Mutex
	plans []Plan
	err   error
}

// Notice takes a message of the server.
func (r *Recorder) Notice(text string) {
	p, ok, err := parse(text)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.err = err
	}
	if ok {
		r.plans = append(r.plans, p)
	}
}

// Take gives the plans since it was last called.
func (r *Recorder) Take() ([]Plan, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	plans := r.plans
	r.plans = nil
	return plans, r.err
}
