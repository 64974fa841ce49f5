// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// difference is where a result is furthest from what was published.
type difference struct {
	trace, policy string
	points        float64
	load          int
}

// differences of the results whose trace and policy were published.
func differences(published io.Reader, results []result) ([]difference, error) {
	rows, err := csv.NewReader(published).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("published results: %w", err)
	}
	if len(rows) == 0 || len(rows[0]) < 3 || rows[0][0] != "trace" || rows[0][1] != "policy" {
		return nil, errors.New("published results: want a table with the columns trace, policy, …, alloc_at_80, …")
	}
	var all []difference
	for _, r := range results {
		for _, row := range rows[1:] {
			if row[0] != r.Trace || row[1] != r.Policy {
				continue
			}
			most := difference{trace: r.Trace, policy: r.Policy}
			for i, column := range rows[0] {
				load, err := strconv.Atoi(strings.TrimPrefix(column, "alloc_at_"))
				if err != nil || load >= len(r.curve) {
					continue // another column
				}
				value, err := strconv.ParseFloat(row[i], 64)
				if err != nil {
					return nil, fmt.Errorf("published results: %s of %s on %s is %q, want a number", column, r.Policy, r.Trace, row[i])
				}
				if points := r.curve[load] - value; math.Abs(points) > math.Abs(most.points) {
					most.points, most.load = points, load
				}
			}
			all = append(all, most)
		}
	}
	return all, nil
}

func printDifferences(out io.Writer, all []difference) {
	fmt.Fprintln(out, "largest difference from the published means, from 80 to 130 % arrived:")
	for _, d := range all {
		fmt.Fprintf(out, "  %-12s %-14s %+.2f @%d\n", d.trace, d.policy, d.points, d.load)
	}
}
