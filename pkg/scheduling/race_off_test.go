// SPDX-License-Identifier: Apache-2.0

//go:build !race

package scheduling_test

// backlog is how many pods wait.
const backlog = 50_000

// raceDetector says that the tests run under it.
const raceDetector = false
