// SPDX-License-Identifier: Apache-2.0

package aws

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

var actions = []string{"terminate", "stop", "hibernate"}

// instanceAction is the answer of /latest/meta-data/spot/instance-action.
type instanceAction struct {
	action string
	at     time.Time
}

// parseInstanceAction reads {"action":"terminate","time":"2026-11-23T10:00:00Z"}.
// A hibernation starts at once, whatever its time says, but EC2 does give one.
func parseInstanceAction(data []byte) (instanceAction, error) {
	var answer struct {
		Action string `json:"action"`
		Time   string `json:"time"`
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return instanceAction{}, fmt.Errorf("spot/instance-action: %w", err)
	}
	if !slices.Contains(actions, answer.Action) {
		return instanceAction{}, fmt.Errorf("spot/instance-action: unknown action %q", answer.Action)
	}
	at, err := time.Parse(time.RFC3339, answer.Time)
	if err != nil {
		return instanceAction{}, fmt.Errorf("spot/instance-action: time: %w", err)
	}
	return instanceAction{action: answer.Action, at: at.UTC()}, nil
}

// parseRebalance reads {"noticeTime":"2026-11-23T10:00:00Z"}.
func parseRebalance(data []byte) (time.Time, error) {
	var answer struct {
		NoticeTime string `json:"noticeTime"`
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return time.Time{}, fmt.Errorf("rebalance recommendation: %w", err)
	}
	at, err := time.Parse(time.RFC3339, answer.NoticeTime)
	if err != nil {
		return time.Time{}, fmt.Errorf("rebalance recommendation: noticeTime: %w", err)
	}
	return at.UTC(), nil
}

// scheduledEvent is one entry of /latest/meta-data/events/maintenance/scheduled.
type scheduledEvent struct {
	id     string
	action string
	// at is when it may begin; zero if that cannot be read.
	at time.Time
}

// eventActions is what EC2's event codes do to the instance.
var eventActions = map[string]string{
	"instance-reboot":     "reboot",
	"system-reboot":       "reboot",
	"system-maintenance":  "maintain",
	"instance-retirement": "retire",
	"instance-stop":       "stop",
}

// parseScheduledEvents reads the list of events and leaves out those that are
// completed or cancelled. What can be read of it is returned in any case: one entry
// that is not understood must hide neither another nor, where only its time is
// unreadable, itself.
func parseScheduledEvents(data []byte) ([]scheduledEvent, error) {
	var entries []json.RawMessage
	if err := json.Unmarshal(data, &entries); err != nil {
		return nil, fmt.Errorf("events/maintenance/scheduled: %w", err)
	}
	var events []scheduledEvent
	var errs []error
	for i, entry := range entries {
		var e struct{ Code, EventID, NotBefore, State, Description string }
		if err := json.Unmarshal(entry, &e); err != nil {
			errs = append(errs, fmt.Errorf("events/maintenance/scheduled: entry %d: %w", i, err))
			continue
		}
		if e.State == "completed" || e.State == "canceled" {
			continue
		}
		// EC2 also says it in front of the description of an event that it still lists.
		if strings.HasPrefix(e.Description, "[Completed]") || strings.HasPrefix(e.Description, "[Canceled]") {
			continue
		}
		action := eventActions[e.Code]
		if action == "" || e.EventID == "" {
			errs = append(errs, fmt.Errorf("events/maintenance/scheduled: entry %d: unknown code %q, or no EventId", i, e.Code))
			continue
		}
		at, err := parseEventTime(e.NotBefore)
		if err != nil {
			errs = append(errs, fmt.Errorf("events/maintenance/scheduled: entry %d: NotBefore: %w", i, err))
		}
		events = append(events, scheduledEvent{id: e.EventID, action: action, at: at})
	}
	return events, errors.Join(errs...)
}

// parseEventTime reads "23 Nov 2026 19:00:46 GMT", as events have it, and RFC 3339.
func parseEventTime(s string) (time.Time, error) {
	at, err := time.Parse("2 Jan 2006 15:04:05 MST", s)
	if err == nil {
		if _, offset := at.Zone(); offset != 0 || !strings.HasSuffix(s, "GMT") && !strings.HasSuffix(s, "UTC") {
			return time.Time{}, fmt.Errorf("%q is not in GMT", s)
		}
		return at.UTC(), nil
	}
	if at, otherwise := time.Parse(time.RFC3339, s); otherwise == nil {
		return at.UTC(), nil
	}
	return time.Time{}, err
}

// The states of an instance in an Auto Scaling group, as target-lifecycle-state names
// them. Those of a warm pool have "Warmed:" in front.
var lifecycleStates = []string{"InService", "Standby", "Detached", "Terminated", "Stopped", "Running", "Hibernated", "Warmed", "Pending", "EnteringStandby"}

// parseLifecycleState reads the state that the group wants the instance to have, and
// reports whether it ends the machine.
func parseLifecycleState(data []byte) (state string, ends bool, err error) {
	state = strings.TrimSpace(string(data))
	name := state
	if _, warmed, found := strings.Cut(state, ":"); found {
		name = warmed
	}
	if !slices.Contains(lifecycleStates, name) {
		return "", false, fmt.Errorf("autoscaling/target-lifecycle-state: unknown state %.40q", state)
	}
	return state, slices.Contains([]string{"Terminated", "Stopped", "Hibernated"}, name), nil
}
