// SPDX-License-Identifier: Apache-2.0

// Package proc starts processes that end with the benchmark, and says what
// they used.
package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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

// FamilyCPUTime is the CPU time of a process and of its children, those that have ended
// among them: PostgreSQL has one for each connection.
func FamilyCPUTime(pid int) (time.Duration, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		used, parent, err := parseFamily(data)
		if err != nil {
			return 0, err
		}
		if parent == pid || file == fmt.Sprintf("/proc/%d/stat", pid) {
			sum += used
		}
	}
	return sum, nil
}

// parseCPU reads fields 14 and 15 of /proc/PID/stat.
func parseCPU(stat []byte) (time.Duration, error) {
	fields, err := numbers(stat, 14, 15)
	if err != nil {
		return 0, err
	}
	return time.Duration(fields[0]+fields[1]) * clockTick, nil
}

// parseFamily reads fields 14 to 17 of /proc/PID/stat, the times of the process and of its
// children that have ended, and field 4, its parent.
func parseFamily(stat []byte) (used time.Duration, parent int, err error) {
	fields, err := numbers(stat, 14, 15, 16, 17, 4)
	if err != nil {
		return 0, 0, err
	}
	return time.Duration(fields[0]+fields[1]+fields[2]+fields[3]) * clockTick, int(fields[4]), nil
}

// numbers are fields of /proc/PID/stat, which counts from 1. Field 2 is the name, which
// may have spaces and brackets of its own.
func numbers(stat []byte, places ...int) ([]int64, error) {
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	out := make([]int64, len(places))
	for n, place := range places {
		if len(fields) < place-2 {
			return nil, fmt.Errorf("/proc/PID/stat is %q, wanted at least %d fields", stat, place)
		}
		number, err := strconv.ParseInt(fields[place-3], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("/proc/PID/stat has %q in field %d: %w", fields[place-3], place, err)
		}
		out[n] = number
	}
	return out, nil
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
