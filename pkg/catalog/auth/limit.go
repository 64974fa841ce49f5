// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxCallers bounds the callers whose rate is kept; see Limits.
const maxCallers = 10_000

// Limits bounds how often each caller may ask. Those who have not asked for a while
// are forgotten; more callers at once than are kept share one limit.
type Limits struct {
	perSecond rate.Limit
	burst     int

	mu      sync.Mutex
	callers map[string]*rate.Limiter
	others  *rate.Limiter
}

// NewLimits lets each caller ask so often in a second, and for two seconds' worth
// at once. 0 is no limit.
func NewLimits(perSecond float64) *Limits {
	if perSecond <= 0 {
		return nil
	}
	burst := max(1, int(2*perSecond))
	return &Limits{perSecond: rate.Limit(perSecond), burst: burst, callers: map[string]*rate.Limiter{}, others: rate.NewLimiter(rate.Limit(perSecond), burst)}
}

// Take counts a request of a caller. If there were too many, it says after how long
// there is room for one.
func (l *Limits) Take(caller string) (wait time.Duration, ok bool) {
	if l == nil {
		return 0, true
	}
	r := l.of(caller).Reserve()
	if wait = r.Delay(); wait == 0 {
		return 0, true
	}
	r.Cancel() // it is refused, and does not make later ones wait
	return wait, false
}

// Exhausted says whether a caller has used up what it may ask, without counting a
// request, and after how long it may ask again.
func (l *Limits) Exhausted(caller string) (wait time.Duration, exhausted bool) {
	if l == nil {
		return 0, false
	}
	missing := 1 - l.of(caller).Tokens()
	return max(0, time.Duration(missing/float64(l.perSecond)*float64(time.Second))), missing > 0
}

func (l *Limits) of(caller string) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if limiter, ok := l.callers[caller]; ok {
		return limiter
	}
	if len(l.callers) >= maxCallers {
		for name, limiter := range l.callers {
			if limiter.Tokens() >= float64(l.burst) {
				delete(l.callers, name)
			}
		}
	}
	if len(l.callers) >= maxCallers {
		return l.others
	}
	limiter := rate.NewLimiter(l.perSecond, l.burst)
	l.callers[caller] = limiter
	return limiter
}
