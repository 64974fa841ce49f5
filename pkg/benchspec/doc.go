// SPDX-License-Identifier: Apache-2.0

// Package benchspec is the contract between a benchmark pod and Spotbench: the
// annotations under spotbench.dev/ that a pod may carry, how they are read, and
// the one the scheduler writes back.
//
// One table (Annotations) is the source of the parser's errors, of the reference
// page docs/reference/annotations.md and of the admission policies under
// manifests/base/admission, so that what is documented, what is admitted and what
// is understood are the same.
//
// The package is pure: no client, no clock, no I/O.
package benchspec

//go:generate go run ./internal/generate -docs ../../docs/reference/annotations.md -policies ../../manifests/base/admission/policies.yaml -affinity ../../manifests/base/affinity/policy.yaml
