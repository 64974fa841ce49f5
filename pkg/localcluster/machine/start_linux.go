// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// Start starts a machine's init. When attach returns without an error, given the
// init's PID on the host, the init gets its spec and goes on; otherwise it ends.
func Start(cluster, name string, spec Spec, attach func(pid int) error) error {
	if err := os.MkdirAll(spec.LogDir, 0o755); err != nil {
		return fmt.Errorf("make the log directory of %s: %w", name, err)
	}
	log, err := os.OpenFile(filepath.Join(spec.LogDir, "init.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", name, err)
	}
	defer log.Close()
	flags := uintptr(syscall.CLONE_NEWPID | syscall.CLONE_NEWNS)
	if spec.Node != nil {
		flags |= syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC
	}
	encoded, err := json.Marshal(spec)
	if err != nil {
		return fmt.Errorf("encode the spec of %s: %w", name, err)
	}
	cmd := exec.Command("/proc/self/exe") //nolint:noctx // it outlives every context of its starter
	cmd.Args = []string{Argv0, cluster, name}
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Setsid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("make the pipe to %s: %w", name, err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the machine %s: %w", name, err)
	}
	// Its starter may live on for long: bury it whenever it ends.
	go func() { _ = cmd.Wait() }()
	if attach != nil {
		if err := attach(cmd.Process.Pid); err != nil {
			_ = cmd.Process.Kill()
			return err
		}
	}
	_, err = stdin.Write(encoded)
	if err := errors.Join(err, stdin.Close()); err != nil {
		_ = cmd.Process.Kill()
		return fmt.Errorf("send %s its spec: %w", name, err)
	}
	return nil
}

// Find returns the init PIDs of a cluster's machines by name, from the process
// table: no file of ours has to be right for that.
func Find(cluster string) (map[string]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("read the process table: %w", err)
	}
	found := map[string]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		cmdline, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil {
			continue // ended meanwhile
		}
		args := bytes.Split(bytes.TrimSuffix(cmdline, []byte{0}), []byte{0})
		if len(args) == 3 && string(args[0]) == Argv0 && string(args[1]) == cluster {
			found[string(args[2])] = pid
		}
	}
	return found, nil
}

// Kill takes a machine away at once and returns when nothing of it runs any more.
func Kill(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill the machine with PID %d: %w", pid, err)
	}
	// The kernel lets a namespace's PID 1 go only after all its processes.
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		if !running(pid) {
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return fmt.Errorf("the machine with PID %d did not end within 30 s of being killed", pid)
}

func running(pid int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return false
	}
	// The state follows the parenthesised command name; a zombie runs no more,
	// unless only its first thread is one.
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 || i+2 >= len(stat) || stat[i+2] != 'Z' {
		return true
	}
	threads, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "task"))
	return err == nil && len(threads) > 1
}
