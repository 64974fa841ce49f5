// SPDX-License-Identifier: Apache-2.0

//go:build race

package importer_test

// raceDetector multiplies memory and time.
const raceDetector = true
