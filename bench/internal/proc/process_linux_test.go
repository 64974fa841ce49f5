// SPDX-License-Identifier: Apache-2.0

package proc

import "testing"

func TestProcFilesAreRead(t *testing.T) {
	// utime 7 and stime 5 in ticks of 10 ms; the name has a space and a bracket.
	if got, err := parseCPU([]byte("1 (a b) c) S 1 1 1 0 -1 4194560 10 0 0 0 7 5 0 0 20 0 1 0 1 1 1")); err != nil || got.Milliseconds() != 120 {
		t.Errorf("CPU time %v, %v, want 120 ms", got, err)
	}
	if got, parent, err := parseFamily([]byte("1 (a b) c) S 42 1 1 0 -1 4194560 10 0 0 0 7 5 3 1 20 0 1 0 1 1 1")); err != nil || got.Milliseconds() != 160 || parent != 42 {
		t.Errorf("CPU time with ended children %v, of a child of %d, %v, want 160 ms and 42", got, parent, err)
	}
	if got, err := parsePeak([]byte("Name:\tx\nVmHWM:\t    2048 kB\n")); err != nil || got != 2<<20 {
		t.Errorf("peak %v, %v, want 2 MiB", got, err)
	}
	for _, bad := range []string{"", "1 (a) S", "1 (a) S 1 1 1 0 -1 4194560 10 0 0 0 x 5 0"} {
		if _, err := parseCPU([]byte(bad)); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	if _, err := parsePeak([]byte("VmRSS: 1 kB")); err == nil {
		t.Error("a status without a peak is accepted")
	}
}
