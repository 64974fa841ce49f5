// SPDX-License-Identifier: Apache-2.0

//go:build race

package scheduling_test

// backlog is how many pods wait: under the race detector each takes ten times as long.
const backlog = 5_000

// raceDetector says that the tests run under it.
const raceDetector = true
