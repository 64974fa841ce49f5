// SPDX-License-Identifier: Apache-2.0

package scheduling

import (
	"context"
	"time"

	"k8s.io/klog/v2"

	"github.com/spotbench/spotbench/pkg/pricing"
)

// watchPrices says which prices of the book are older than a limit, in the metrics and in
// the log, at once and each time that another becomes so under the running scheduler. It
// returns when all are, or with ctx.
func watchPrices(ctx context.Context, prices pricing.Book, limit time.Duration) {
	logger := klog.FromContext(ctx)
	oldestPrice.Set(0)
	all := prices.OlderThan(time.Unix(1<<40, 0)) // by age
	if len(all) > 0 {
		oldestPrice.Set(float64(all[0].AsOf.Unix()))
	}
	for {
		old := len(prices.OlderThan(time.Now().Add(-limit)))
		oldPrices.Set(float64(old))
		if old > 0 {
			logger.Info("Old prices: decisions rest on them all the same; fetch new ones with `kubectl spotbench prices`", "plugin", Name, "field", "args.pricesFile",
				"old", old, "prices", len(all), "limit", limit.String(), "oldest", all[0].Pool().String(), "asOf", all[0].AsOf.Format(time.DateOnly))
		}
		if old == len(all) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(all[old].AsOf.Add(limit)) + time.Millisecond):
		}
	}
}
