// SPDX-License-Identifier: Apache-2.0

package aws

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseInstanceAction(t *testing.T) {
	tests := map[string]struct {
		in   string
		want instanceAction
		bad  bool
	}{
		"an answer as EC2 documents it": {in: `{"action":"terminate","time":"2026-11-23T10:02:00Z"}`,
			want: instanceAction{"terminate", time.Date(2026, 11, 23, 10, 2, 0, 0, time.UTC)}},
		"a time in another zone is the same moment": {in: `{"action":"stop","time":"2026-11-23T11:02:00+01:00"}`,
			want: instanceAction{"stop", time.Date(2026, 11, 23, 10, 2, 0, 0, time.UTC)}},
		"an unknown action is an error, not a guess": {in: `{"action":"reboot","time":"2026-11-23T10:02:00Z"}`, bad: true},
		"no time":        {in: `{"action":"stop"}`, bad: true},
		"an error page":  {in: `<?xml version="1.0"?><html>404</html>`, bad: true},
		"half an answer": {in: `{"action":"termi`, bad: true},
		"nothing":        {in: ``, bad: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := parseInstanceAction([]byte(tt.in))
			if got != tt.want || (err != nil) != tt.bad {
				t.Errorf("parseInstanceAction(%s) = %v, %v", tt.in, got, err)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"action":"terminate","time":"2026-11-23T10:02:00Z"}`))
	f.Add([]byte(`{"noticeTime":"2026-11-23T10:02:00+14:00"}`))
	f.Add([]byte(`[{"NotBefore":"23 Nov 2026 19:00:46 GMT","Code":"system-reboot","EventId":"e","State":"active"},7,{"Code":""}]`))
	f.Add([]byte(`[{"NotBefore":"2026-11-23T19:00:46+02:00","Code":"instance-stop","EventId":"e"}]`))
	f.Add([]byte("Warmed:Terminated\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, err := parseInstanceAction(data); err == nil && (!slices.Contains(actions, got.action) || got.at.Location() != time.UTC) {
			t.Errorf("accepted %q as %v", data, got)
		}
		if at, err := parseRebalance(data); err == nil && at.Location() != time.UTC {
			t.Errorf("accepted %q as %v", data, at)
		}
		events, _ := parseScheduledEvents(data)
		for _, e := range events {
			if e.id == "" || e.action == "" || e.at.Location() != time.UTC {
				t.Errorf("accepted %q as %+v", data, e)
			}
		}
		if state, ends, err := parseLifecycleState(data); err != nil && (state != "" || ends) || err == nil && !strings.Contains(string(data), state) {
			t.Errorf("accepted %q as %q", data, state)
		}
	})
}
