// SPDX-License-Identifier: Apache-2.0

// Package agent is the node's control loop. For each benchmark pod of its node it
// restores the newest checkpoint before the pod starts, checkpoints it while it
// runs, imports its results, and keeps the catalog's records of it. On a notice
// it warns the cluster, saves every pod and evicts it, in the time that is left.
//
// Everything that saves work needs only this node and the checkpoint store. The
// API server and the catalog are told at the same time, and told again later when
// they cannot be reached.
package agent
