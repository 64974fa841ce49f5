// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// GetTelemetry is the telemetry of a run, with how it went over time.
func (s *Store) GetTelemetry(ctx context.Context, key string) ([]catalog.Telemetry, error) {
	type one struct {
		catalog.Telemetry
		there bool
	}
	scan := func(from row) (o one, err error) {
		var pod *string
		var first, last *time.Time
		var gpus, course []byte
		if err := from.Scan(&pod, &first, &last, &gpus, &course); err != nil || pod == nil {
			return o, err
		}
		o.there, o.PodUID, o.From, o.To = true, *pod, moment(first), moment(last)
		if err := json.Unmarshal(gpus, &o.GPUs); err != nil || course == nil {
			return o, err
		}
		series := map[string]*catalog.Series{}
		err = json.Unmarshal(course, &series)
		for n, g := range o.GPUs {
			o.GPUs[n].Series = series[g.UUID]
		}
		return o, err
	}
	w := where{}
	w.compare("r.key =", key)
	w.within(ctx, "r.key")
	found, err := ask(ctx, s, scan, "SELECT t.pod_uid, t.from_at, t.to_at, t.gpus, t.series FROM runs r LEFT JOIN telemetry t ON t.run_key = r.key"+w.all()+" ORDER BY t.from_at, t.pod_uid", w.args...)
	if err != nil {
		return nil, explain(err)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("run %q: %w", key, catalog.ErrNotFound)
	}
	telemetry := []catalog.Telemetry{}
	for _, o := range found {
		if o.there {
			telemetry = append(telemetry, o.Telemetry)
		}
	}
	return telemetry, nil
}
