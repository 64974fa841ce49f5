// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"time"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/checkpoint"
)

// handover is what a checkpoint made on a notice says of the interruption. The agent
// that restores it tells the catalog too: this machine may be gone before the catalog
// could be reached.
type handover struct {
	Interruption catalog.Interruption `json:"interruption"`
	// StartedAt and StoppedAt are the pod's, the latter only once it has stopped.
	StartedAt time.Time `json:"startedAt,omitzero"`
	StoppedAt time.Time `json:"stoppedAt,omitzero"`
}

// noticeMeta is the metadata of a checkpoint made because of the notice.
func (w *workload) noticeMeta(notice, final string, record catalog.Interruption, stopped time.Time) map[string]string {
	meta := map[string]string{metaNotice: notice, metaFinal: final}
	pod, _, _ := w.state()
	data, err := json.Marshal(handover{Interruption: record, StartedAt: startedAt(pod), StoppedAt: stopped})
	if err != nil {
		w.log.Error("the checkpoint does not say what it was made for", "error", err)
		return meta
	}
	meta[metaHandover] = string(data)
	return meta
}

// handedOver is what the records must say of the pod that made the checkpoint, as far
// as the checkpoint knows; false if it was not made on a notice.
func handedOver(g checkpoint.Restored) (catalog.Interruption, catalog.Segment, bool) {
	if g.Meta[metaNotice] == "" {
		return catalog.Interruption{}, catalog.Segment{}, false
	}
	var h handover
	if err := json.Unmarshal([]byte(g.Meta[metaHandover]), &h); err != nil || h.Interruption.Validate() != nil {
		h = handover{} // that it was restored can be told all the same
	}
	i := h.Interruption
	i.CheckpointGeneration, i.CheckpointBytes, i.Outcome = g.Number, g.Bytes, outcomeSaved
	if !h.StoppedAt.IsZero() {
		lost := max(0, h.StoppedAt.Sub(g.NewestFile).Seconds())
		i.WorkLostSeconds = &lost
	}
	return i, catalog.Segment{Node: i.Node, StartedAt: h.StartedAt, EndedAt: h.StoppedAt}, true
}
