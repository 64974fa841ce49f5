// SPDX-License-Identifier: Apache-2.0

package aws

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// The largest answer that is read; the real ones are below 100 bytes.
const maxAnswer = 4 << 10

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
