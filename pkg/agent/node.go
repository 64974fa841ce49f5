// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/interruption"
)

// nodeObject is this node in the API: what the scheduler and people see of a notice.
type nodeObject struct {
	client Cluster
	name   string
}

// Warn taints the node, takes it out of external load balancers and sets its condition. It
// may be repeated.
func (o nodeObject) Warn(ctx context.Context, n interruption.Notice) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if err := o.setTaint(ctx, benchspec.TaintInterruption, &corev1.Taint{Key: benchspec.TaintInterruption, Value: string(n.Kind), Effect: corev1.TaintEffectNoSchedule}); err != nil {
		return err
	}
	return o.setCondition(ctx, benchspec.ConditionSpotInterruption, corev1.ConditionTrue, takesReasons[n.Kind], announcement(n))
}

// RaiseRisk says that the cloud recommends to leave the machine. It may be repeated.
func (o nodeObject) RaiseRisk(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	return o.setCondition(ctx, benchspec.ConditionRebalance, corev1.ConditionTrue, "RebalanceRecommendation", "the cloud sees a raised risk of taking this machine back")
}

// LowerRisk undoes RaiseRisk.
func (o nodeObject) LowerRisk(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	return o.setCondition(ctx, benchspec.ConditionRebalance, corev1.ConditionFalse, "NoRecommendation", "the cloud no longer recommends to leave this machine")
}

// Warned reports whether the node carries the taint of a notice.
func (o nodeObject) Warned(ctx context.Context) (bool, error) {
	return o.tainted(ctx, benchspec.TaintInterruption)
}

// GPUUnhealthy reports whether the node carries the taint of a GPU that cannot be relied on.
func (o nodeObject) GPUUnhealthy(ctx context.Context) (bool, error) {
	return o.tainted(ctx, benchspec.TaintGPUUnhealthy)
}

func (o nodeObject) tainted(ctx context.Context, key string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	node, err := o.client.Nodes().Get(ctx, o.name, metav1.GetOptions{})
	if err != nil {
		return false, fmt.Errorf("read node %s: %w", o.name, err)
	}
	return slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == key }), nil
}

// Clear undoes Warn.
func (o nodeObject) Clear(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if err := o.setTaint(ctx, benchspec.TaintInterruption, nil); err != nil {
		return err
	}
	return o.setCondition(ctx, benchspec.ConditionSpotInterruption, corev1.ConditionFalse, "NoNotice", "no notice of an interruption")
}

// SetGPUHealth sets the condition of the node's GPUs, and the taint that goes with it:
// one for False, none for True. Unknown leaves the taint as it is. It may be repeated.
func (o nodeObject) SetGPUHealth(ctx context.Context, status corev1.ConditionStatus, reason, message string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	var err error
	switch status {
	case corev1.ConditionFalse:
		err = o.setTaint(ctx, benchspec.TaintGPUUnhealthy, &corev1.Taint{Key: benchspec.TaintGPUUnhealthy, Value: reason, Effect: corev1.TaintEffectNoSchedule})
	case corev1.ConditionTrue:
		err = o.setTaint(ctx, benchspec.TaintGPUUnhealthy, nil)
	case corev1.ConditionUnknown:
	}
	if err != nil {
		return err
	}
	node, err := o.client.Nodes().Get(ctx, o.name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read node %s: %w", o.name, err)
	}
	changed := !slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == benchspec.ConditionGPUHealthy && c.Status == status
	})
	return o.patchCondition(ctx, benchspec.ConditionGPUHealthy, status, reason, message, changed)
}

// excluded says whose the exclusion from load balancers is: a label that somebody else set
// has another value and stays as it is.
const excluded = "spotbench"

// balancing is what a patch of the node's labels must say, so that external load balancers
// leave out the node with the taint of a notice and take in the one without.
func balancing(node *corev1.Node, key string, taint *corev1.Taint) map[string]any {
	value, found := node.Labels[corev1.LabelNodeExcludeBalancers]
	switch {
	case key != benchspec.TaintInterruption:
	case taint != nil && !found:
		return map[string]any{corev1.LabelNodeExcludeBalancers: excluded}
	case taint == nil && value == excluded:
		return map[string]any{corev1.LabelNodeExcludeBalancers: nil}
	}
	return nil
}

// setTaint replaces our taint of a key, or removes it for nil, with what goes with it. The
// list of taints has no merge key, so it is replaced whole, and only if nobody changed the
// node meanwhile.
func (o nodeObject) setTaint(ctx context.Context, key string, taint *corev1.Taint) error {
	for {
		node, err := o.client.Nodes().Get(ctx, o.name, metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("read node %s: %w", o.name, err)
		}
		taints := slices.DeleteFunc(slices.Clone(node.Spec.Taints), func(t corev1.Taint) bool { return t.Key == key })
		if taint != nil {
			taints = append(taints, *taint)
		}
		labels := balancing(node, key, taint)
		if labels == nil && slices.EqualFunc(taints, node.Spec.Taints, func(x, y corev1.Taint) bool {
			return x.MatchTaint(&y) && x.Value == y.Value
		}) {
			return nil
		}
		metadata := map[string]any{"resourceVersion": node.ResourceVersion}
		if labels != nil { // null would take all of them away
			metadata["labels"] = labels
		}
		patch, err := json.Marshal(map[string]any{"metadata": metadata, "spec": map[string]any{"taints": taints}})
		if err != nil {
			return err
		}
		_, err = o.client.Nodes().Patch(ctx, o.name, types.MergePatchType, patch, metav1.PatchOptions{})
		if apierrors.IsConflict(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("taint node %s: %w", o.name, err)
		}
		return nil
	}
}

func (o nodeObject) setCondition(ctx context.Context, kind corev1.NodeConditionType, status corev1.ConditionStatus, reason, message string) error {
	return o.patchCondition(ctx, kind, status, reason, message, true)
}

// patchCondition sets a condition. The time of its last transition stays as it is unless
// its status has changed.
func (o nodeObject) patchCondition(ctx context.Context, kind corev1.NodeConditionType, status corev1.ConditionStatus, reason, message string, changed bool) error {
	now := metav1.Now()
	condition := map[string]any{"type": kind, "status": status, "reason": reason, "message": message, "lastHeartbeatTime": now}
	if changed {
		condition["lastTransitionTime"] = now
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": []any{condition}}})
	if err != nil {
		return err
	}
	if _, err := o.client.Nodes().Patch(ctx, o.name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
		return fmt.Errorf("set the condition of node %s: %w", o.name, err)
	}
	return nil
}

// retry calls do until it succeeds or ctx ends.
func retry(ctx context.Context, pause time.Duration, do func() error) error {
	for {
		err := do()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		}
	}
}
