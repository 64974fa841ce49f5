// SPDX-License-Identifier: Apache-2.0

// Package runpolicy decides over time where a run with a deadline goes on: on spot
// capacity of which zone, waiting for it, or on demand. It is pure: it is asked once
// per step what to do with what can be seen now, learns how long capacity lasts and
// stays away as it goes, and sees nothing of the future.
//
// It never misses a deadline that on-demand capacity alone could have met: a choice
// after which on demand could no longer finish in time is not considered. Among the
// others it takes the one with the least expected cost, by dynamic programming
// backwards from the deadline (see plan.go).
package runpolicy
