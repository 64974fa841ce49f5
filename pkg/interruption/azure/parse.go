// SPDX-License-Identifier: Apache-2.0

package azure

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spotbench/spotbench/pkg/interruption"
)

// document is the answer of the Scheduled Events service.
type document struct {
	incarnation int64
	events      []event
}

// event is one entry of a document.
type event struct {
	id        string
	kind      interruption.Kind
	action    string
	resources []string
	started   bool
	// notBefore is zero where the service does not say, as it may not of an event that
	// has started, and where it cannot be read.
	notBefore time.Time
}

var eventTypes = map[string]struct {
	kind   interruption.Kind
	action string
}{
	"Freeze":    {interruption.KindPause, "freeze"},
	"Reboot":    {interruption.KindMaintenance, "reboot"},
	"Redeploy":  {interruption.KindMaintenance, "redeploy"},
	"Preempt":   {interruption.KindSpot, "terminate"},
	"Terminate": {interruption.KindTermination, "terminate"},
}

// affects reports whether the machine of that name is meant. Azure's names do not
// distinguish cases.
func (e event) affects(name string) bool {
	return slices.ContainsFunc(e.resources, func(r string) bool { return strings.EqualFold(r, name) })
}

// parseDocument reads the events that are scheduled or have started. What can be
// read of it is returned in any case, but a document without an incarnation or a list
// is none.
func parseDocument(data []byte) (document, error) {
	var answer struct {
		DocumentIncarnation *int64
		Events              *[]json.RawMessage
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return document{}, err
	}
	if answer.DocumentIncarnation == nil || answer.Events == nil {
		return document{}, errors.New("there is no DocumentIncarnation or no Events")
	}
	doc := document{incarnation: *answer.DocumentIncarnation}
	var errs []error
	for i, entry := range *answer.Events {
		var e struct {
			EventID, EventType, EventStatus, NotBefore string
			Resources                                  []string
		}
		if err := json.Unmarshal(entry, &e); err != nil {
			errs = append(errs, fmt.Errorf("event %d: %w", i, err))
			continue
		}
		if e.EventStatus == "Completed" || e.EventStatus == "Canceled" {
			continue
		}
		known, ok := eventTypes[e.EventType]
		if !ok || e.EventID == "" {
			errs = append(errs, fmt.Errorf("event %d: unknown EventType %q, or no EventId", i, e.EventType))
			continue
		}
		found := event{id: e.EventID, kind: known.kind, action: known.action, resources: e.Resources, started: e.EventStatus == "Started"}
		at, err := parseTime(e.NotBefore)
		if err != nil {
			errs = append(errs, fmt.Errorf("event %d: NotBefore: %w", i, err))
		}
		found.notBefore = at
		doc.events = append(doc.events, found)
	}
	return doc, errors.Join(errs...)
}

// parseTime reads "Mon, 19 Sep 2016 18:29:47 GMT" and RFC 3339; nothing is no time.
func parseTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if at, err := time.Parse(time.RFC3339, s); err == nil {
		return at.UTC(), nil
	}
	at, err := time.Parse(time.RFC1123, s)
	if err != nil {
		return time.Time{}, err
	}
	if !strings.HasSuffix(s, " GMT") && !strings.HasSuffix(s, " UTC") {
		return time.Time{}, fmt.Errorf("%q is not in GMT", s)
	}
	return at.UTC(), nil
}

// parseName reads the machine's own name from the answer of the instance service.
func parseName(data []byte) (string, error) {
	var answer struct {
		Compute struct{ Name string }
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return "", err
	}
	if answer.Compute.Name == "" || len(answer.Compute.Name) > 256 {
		return "", fmt.Errorf("compute.name %.40q is not the name of a machine", answer.Compute.Name)
	}
	return answer.Compute.Name, nil
}
