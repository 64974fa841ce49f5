// SPDX-License-Identifier: Apache-2.0

package workflow

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spotbench/spotbench/pkg/benchspec"
)

const (
	// Label marks the workflows that Spotbench has suspended; its value is LabelValue.
	// Agents watch the workflows that have it.
	Label = benchspec.Prefix + "suspended"
	// LabelValue is why they are suspended.
	LabelValue = "interruption"
	// AnnotationPrefix and the name of a node are the annotation with that node's Hold.
	AnnotationPrefix = "interruption." + benchspec.Prefix
	// longestNode is the longest node name that fits into an annotation's name. The
	// kubelet's own label with its name has the same limit.
	longestNode = 63
)

// Hold is why a workflow is suspended on behalf of one node. It is the value of that
// node's annotation, so that two nodes do not write the same one.
type Hold struct {
	// By is who suspended it, for people.
	By string `json:"by"`
	// Notice is the notice's ID.
	Notice string `json:"notice"`
	// NoticeAt is when the agent saw the notice, by its node's clock. It is for people:
	// no other machine reckons with it.
	NoticeAt time.Time `json:"noticeAt"`
	// WindowSeconds is the time from the notice to the end of the machine. Who waits
	// for the hold counts it from the moment it saw the hold, by its own clock.
	WindowSeconds int64 `json:"windowSeconds"`
	// Pods are the names of the workflow's pods on the node that must be gone before
	// the workflow is resumed.
	Pods []string `json:"pods,omitempty"`
	// Released says that the agent has done what it could: each pod is saved, or given
	// up on, and recorded.
	Released bool `json:"released,omitempty"`
}

// window is the time until the node's machine is gone.
func (h Hold) window() time.Duration { return time.Duration(h.WindowSeconds) * time.Second }

// ends is when the machine is gone by its own clock.
func (h Hold) ends() time.Time { return h.NoticeAt.Add(h.window()) }

// annotation is the name of the node's annotation.
func annotation(node string) string { return AnnotationPrefix + node }

// CheckNode says whether holds can be kept for a node of that name.
func CheckNode(node string) error {
	if node == "" || len(node) > longestNode {
		return fmt.Errorf("node name %q: want 1 to %d characters, as the label kubernetes.io/hostname does", node, longestNode)
	}
	return nil
}

// ParseHold reads a node's annotation.
func ParseHold(value string) (Hold, error) {
	var h Hold
	if err := json.Unmarshal([]byte(value), &h); err != nil {
		return Hold{}, fmt.Errorf("%q is not the JSON object that the node agent writes: %w", short(value), err)
	}
	if h.WindowSeconds < 0 || h.WindowSeconds > int64(longestWindow/time.Second) {
		return Hold{}, fmt.Errorf("windowSeconds is %d: want 0 to %d", h.WindowSeconds, int64(longestWindow/time.Second))
	}
	if h.Notice == "" {
		return Hold{}, fmt.Errorf("%q names no notice", short(value))
	}
	return h, nil
}

// longestWindow bounds how long a hold is waited for, however long the notice. The
// agent interrupts pods at most its maintenance lead before the end of the machine.
const longestWindow = 24 * time.Hour

// value is the annotation's value.
func (h Hold) value() (string, error) {
	h.NoticeAt = h.NoticeAt.UTC().Truncate(time.Millisecond)
	text, err := json.Marshal(h)
	if err != nil {
		return "", fmt.Errorf("hold of notice %s: %w", h.Notice, err)
	}
	return string(text), nil
}

func short(s string) string {
	const limit = 80
	if len(s) > limit {
		return strings.ToValidUTF8(s[:limit], "") + "..."
	}
	return s
}
