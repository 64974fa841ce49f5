// SPDX-License-Identifier: Apache-2.0

package azure

import (
	"testing"
	"time"

	"github.com/spotbench/spotbench/pkg/interruption"
)

func TestParseDocument(t *testing.T) {
	const at = "Mon, 23 Nov 2026 10:00:00 GMT"
	ten := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	tests := map[string]struct {
		in     string
		events int
		first  time.Time
		bad    bool
	}{
		"a document as Azure documents it":                      {in: `{"DocumentIncarnation":2,"Events":[{"EventId":"C7061BAC-AFDC-4513-B24B-AA5F13A16123","EventStatus":"Scheduled","EventType":"Freeze","ResourceType":"VirtualMachine","Resources":["WestNO_0","WestNO_1"],"NotBefore":"` + at + `","Description":"Virtual machine is being paused because of a memory-preserving Live Migration operation.","EventSource":"Platform","DurationInSeconds":5}]}`, events: 1, first: ten},
		"no events":                                             {in: `{"DocumentIncarnation":1,"Events":[]}`},
		"an event that has started has no time":                 {in: `{"DocumentIncarnation":2,"Events":[{"EventId":"e","EventStatus":"Started","EventType":"Preempt","NotBefore":""}]}`, events: 1},
		"a time that cannot be read hides no event":             {in: `{"DocumentIncarnation":2,"Events":[{"EventId":"e","EventType":"Preempt","NotBefore":"soon"}]}`, events: 1, bad: true},
		"a time in another zone is not taken for GMT":           {in: `{"DocumentIncarnation":2,"Events":[{"EventId":"e","EventType":"Preempt","NotBefore":"Mon, 23 Nov 2026 10:00:00 CET"}]}`, events: 1, bad: true},
		"a time in RFC 3339":                                    {in: `{"DocumentIncarnation":2,"Events":[{"EventId":"e","EventType":"Preempt","NotBefore":"2026-11-23T11:00:00+01:00"}]}`, events: 1, first: ten},
		"an event that is not understood hides no other":        {in: `{"DocumentIncarnation":2,"Events":[{"EventId":"d","EventType":"Dance"},7,{"EventId":"e","EventType":"Preempt","NotBefore":"` + at + `"}]}`, events: 1, first: ten, bad: true},
		"events that are over or cancelled are not in force":    {in: `{"DocumentIncarnation":2,"Events":[{"EventId":"d","EventType":"Reboot","EventStatus":"Completed"},{"EventId":"e","EventType":"Reboot","EventStatus":"Canceled"}]}`},
		"a document without events is none, not one of nothing": {in: `{"DocumentIncarnation":2}`, bad: true},
		"a document without an incarnation":                     {in: `{"Events":[]}`, bad: true},
		"half a document":                                       {in: `{"DocumentIncarnation":2,"Events":[{"Ev`, bad: true},
		"a page":                                                {in: `<html>`, bad: true},
		"nothing":                                               {in: ``, bad: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			doc, err := parseDocument([]byte(tt.in))
			if (err != nil) != tt.bad || len(doc.events) != tt.events {
				t.Fatalf("parseDocument: %+v, %v; want %d events", doc, err, tt.events)
			}
			if tt.events > 0 && !doc.events[0].notBefore.Equal(tt.first) {
				t.Errorf("not before %s, want %s", doc.events[0].notBefore, tt.first)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"DocumentIncarnation":2,"Events":[{"EventId":"e","EventStatus":"Scheduled","EventType":"Freeze","Resources":["a","b"],"NotBefore":"Mon, 19 Sep 2016 18:29:47 GMT"}]}`))
	f.Add([]byte(`{"DocumentIncarnation":-1,"Events":[7,{"EventType":"Preempt"},{"EventId":"e","EventType":"Preempt","NotBefore":"2016-09-19T18:29:47+02:00"}]}`))
	f.Add([]byte(`{"compute":{"name":"vm"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		doc, _ := parseDocument(data)
		for _, e := range doc.events {
			if e.id == "" || e.action == "" || e.notBefore.Location() != time.UTC ||
				e.kind == interruption.KindRebalance || e.affects("") && len(e.resources) == 0 {
				t.Errorf("accepted %q as %+v", data, e)
			}
		}
		if name, err := parseName(data); (name == "") != (err != nil) {
			t.Errorf("%q: the name is %q, %v", data, name, err)
		}
	})
}
