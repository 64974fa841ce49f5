// SPDX-License-Identifier: Apache-2.0

// Package scheduling makes a kube-scheduler place benchmark pods: a plugin of the
// scheduling framework that refuses nodes by GPU model, nominal memory, capacity
// type, interruption notice, risk, deadline and isolation, ranks the others by the
// expected cost of finishing, and writes the decision and its reason to the pod.
//
// It only adapts: what is decided, and why, is in package placement.
//
//	extension point  file        what it does
//	PreFilter        filter.go   reads the pod's annotations once per attempt; finds
//	                 shortlist.go  the best nodes where the fleet can tell
//	Filter           filter.go   refuses a node, with figures
//	QueueingHints    hints.go    wakes a pod only for events that change a refusal
//	                 fit.go        and one without room only for room that could hold it
//	PreScore, Score  score.go    ranks all feasible nodes; the winner has 100
//	Reserve          decision.go puts the decision together from the snapshot
//	Bind             decision.go binds the pod, with the decision as its annotation
//
// Between attempts fleet.go keeps the nodes as the snapshots showed them, so that an
// attempt looks again only at those that changed.
package scheduling
