// SPDX-License-Identifier: Apache-2.0

// Package workflow suspends the Argo Workflow of pods that are interrupted, so that
// nothing is retried before their work is saved, and resumes it afterwards.
//
// The agent of the interrupted node puts a hold on the workflow: spec.suspend, a
// label, and an annotation for its node. It releases the hold when its pods have
// stopped and all is recorded. Whichever agent holds the Lease resumes a workflow
// once no hold keeps it. What to do is decided by pure functions of the Workflow as
// it was read (Suspend, Release, Resume); each decision is one merge patch that
// counts only if nobody has changed the Workflow since.
//
// Workflows are read and patched as unstructured objects: of all their fields half a
// dozen matter here.
package workflow
