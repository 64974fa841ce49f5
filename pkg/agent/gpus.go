// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/spotbench/spotbench/pkg/telemetry/health"
)

// gpuHeartbeat is how often the condition is set though nothing has changed.
const gpuHeartbeat = 5 * time.Minute

// gpuVerdict is what the node's object should say of its GPUs.
type gpuVerdict struct {
	status          corev1.ConditionStatus
	reason, message string
}

// WatchGPUs keeps the node's condition and taint as the health of its GPUs is, until ctx
// ends. While the API server cannot be reached it tries again, with what holds then.
func (a *Agent) WatchGPUs(ctx context.Context, status func() health.Status) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	var said gpuVerdict
	var saidAt time.Time
	failing := ""
	for {
		verdict, ok := judgeGPUs(status())
		if ok && (verdict != said || time.Since(saidAt) >= gpuHeartbeat) {
			err := a.sayGPUs(ctx, verdict, said, status())
			switch {
			case err == nil:
				said, saidAt, failing = verdict, time.Now(), ""
			case errors.Is(err, errWatching) && failing == "":
				failing = err.Error()
				a.log.Info(failing)
			case ctx.Err() == nil && err.Error() != failing:
				failing = err.Error()
				a.log.Warn("the health of the GPUs could not be told to the API server; it is tried again", "condition", verdict.status, "error", err)
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// watchedEnough is how long an agent that was started anew must have watched before it
// takes back what an earlier one found: an XID leaves no other trace.
const watchedEnough = 5 * time.Minute

var errWatching = fmt.Errorf("a GPU was found unsound before this agent started; the node stays tainted until the GPUs have been watched for %s", watchedEnough)

func (a *Agent) sayGPUs(ctx context.Context, verdict, said gpuVerdict, status health.Status) error {
	if verdict.status == corev1.ConditionTrue && said.status == "" && status.Watched < watchedEnough {
		unhealthy, err := a.node.GPUUnhealthy(ctx)
		if err != nil {
			return err
		}
		if unhealthy {
			return errWatching
		}
	}
	if err := a.node.SetGPUHealth(ctx, verdict.status, verdict.reason, verdict.message); err != nil {
		return err
	}
	if verdict.status == said.status && verdict.reason == said.reason {
		return nil
	}
	switch {
	case verdict.status == corev1.ConditionFalse:
		a.log.Warn("a GPU cannot be relied on; no new pods for this node", "reason", verdict.reason, "message", verdict.message)
		a.nodeEvent(corev1.EventTypeWarning, verdict.reason, verdict.message)
	case verdict.status == corev1.ConditionTrue && said.status == corev1.ConditionFalse:
		a.log.Info("all GPUs can be relied on again")
		a.nodeEvent(corev1.EventTypeNormal, verdict.reason, "all GPUs can be relied on again")
	}
	return nil
}

// judgeGPUs turns incidents into a condition; false while nothing is to be said, as on
// a node whose GPUs were never read.
func judgeGPUs(s health.Status) (gpuVerdict, bool) {
	if len(s.Incidents) > 0 {
		var messages []string
		for _, i := range s.Incidents {
			messages = append(messages, fmt.Sprintf("GPU %d (%s): %s", i.Index, i.GPU, i.Message))
		}
		return gpuVerdict{corev1.ConditionFalse, string(s.Incidents[0].Kind), strings.Join(messages, "; ")}, true
	}
	switch {
	case s.GPUs == 0:
		return gpuVerdict{}, false
	case !s.Known:
		return gpuVerdict{corev1.ConditionUnknown, "GPUsNotRead", "the GPUs have not been read for a minute"}, true
	default:
		return gpuVerdict{corev1.ConditionTrue, "GPUsHealthy", fmt.Sprintf("%d GPUs, nothing wrong with them", s.GPUs)}, true
	}
}
