// SPDX-License-Identifier: Apache-2.0

// Package proc starts processes that end with the benchmark, and says what
// they used.
package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// DiesWithParent has the kernel end a process with the benchmark, however that ends.
func DiesWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

// clockTick is the unit of CPU times in /proc, USER_HZ, 100 on every architecture
// that Go knows.
const clockTick = 10 * time.Millisecond

// CPUTime is the CPU time that a process has used, in user and kernel mode.
func CPUTime(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read a process's CPU time: %w", err)
	}
	return parseCPU(data)
}

// parseCPU reads fields 14 and 15 of /proc/PID/stat. Field 2 is the name, which may
// have spaces and brackets of its own.
func parseCPU(stat []byte) (time.Duration, error) {
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/PID/stat is %q, wanted at least 15 fields", stat)
	}
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/PID/stat has the CPU time %q: %w", f, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}

// PeakMemory is the most memory that a process had resident, in bytes.
func PeakMemory(pid int) (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("read a process's memory: %w", err)
	}
	return parsePeak(data)
}

// parsePeak reads VmHWM of /proc/PID/status.
func parsePeak(status []byte) (int64, error) {
	for line := range strings.Lines(string(status)) {
		if value, found := strings.CutPrefix(line, "VmHWM:"); found {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("/proc/PID/status has %q: %w", line, err)
			}
			return kib << 10, nil
		}
	}
	return 0, errors.New("/proc/PID/status has no line VmHWM")
}
