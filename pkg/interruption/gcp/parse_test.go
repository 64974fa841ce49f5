// SPDX-License-Identifier: Apache-2.0

package gcp

import "testing"

func TestParseValues(t *testing.T) {
	for value, want := range map[string]struct{ preempted, ok bool }{
		"TRUE": {true, true}, "FALSE\n": {false, true}, "true": {true, true}, "": {}, "1": {}, "<html>": {}, "TRUE FALSE": {},
	} {
		if got, err := parsePreempted(value); got != want.preempted || (err == nil) != want.ok {
			t.Errorf("preempted %q: %t, %v", value, got, err)
		}
	}
	for value, want := range map[string]string{"NONE": "", "MIGRATE_ON_HOST_MAINTENANCE\n": "migrate", "TERMINATE_ON_HOST_MAINTENANCE": "terminate"} {
		if _, got, err := parseMaintenance(value); got != want || err != nil {
			t.Errorf("maintenance-event %q: %q, %v", value, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"TRUE", "FALSE", "NONE", "MIGRATE_ON_HOST_MAINTENANCE", "TERMINATE_ON_HOST_MAINTENANCE", "<html>", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		if preempted, err := parsePreempted(value); preempted && err != nil {
			t.Errorf("%q is an error and a preemption", value)
		}
		kind, action, err := parseMaintenance(value)
		if (kind == "") != (action == "") || err != nil && kind != "" {
			t.Errorf("%q: %q %q %v", value, kind, action, err)
		}
	})
}
