// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"
)

// restartDelay keeps a service that fails at once from using up the machine.
const restartDelay = time.Second

// supervisor keeps services running and is the only one that waits for
// processes: as PID 1 it also inherits and must bury every orphan.
type supervisor struct {
	logs map[string]*os.File

	mu       sync.Mutex
	waiting  map[int]chan syscall.WaitStatus
	services []*service
}

type service struct {
	spec     Service
	pid      int
	restarts int
	lastExit string
	// wake has room for one order to look at the spec again.
	wake chan struct{}
}

func newSupervisor(logs map[string]*os.File) *supervisor {
	return &supervisor{logs: logs, waiting: map[int]chan syscall.WaitStatus{}}
}

// reap waits for every child that ends and tells whoever started it.
func (s *supervisor) reap() {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	// A signal may come between two children and stand for both; the tick covers
	// one that came before Notify.
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-children:
		case <-tick.C:
		}
		for {
			var status syscall.WaitStatus
			pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
			if errors.Is(err, syscall.EINTR) {
				continue
			}
			if pid <= 0 || err != nil {
				break
			}
			s.mu.Lock()
			ended := s.waiting[pid]
			delete(s.waiting, pid)
			s.mu.Unlock()
			if ended != nil {
				ended <- status
			}
		}
	}
}

// spawn starts a program. The lock is held from before the start until the
// process is known, so that reap cannot miss a short-lived one.
func (s *supervisor) spawn(program string, args, env []string, files []*os.File) (int, <-chan syscall.WaitStatus, error) {
	if len(args) == 0 {
		return 0, nil, errors.New("no program named")
	}
	if program == "" {
		program = args[0]
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return 0, nil, fmt.Errorf("find %s: %w", program, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := os.StartProcess(path, args, &os.ProcAttr{Env: append(os.Environ(), env...), Files: files, Sys: &syscall.SysProcAttr{Setsid: true}})
	if err != nil {
		return 0, nil, fmt.Errorf("start %s: %w", args[0], err)
	}
	ended := make(chan syscall.WaitStatus, 1)
	pid := p.Pid
	s.waiting[pid] = ended
	_ = p.Release()
	return pid, ended, nil
}

func (s *supervisor) add(spec Service) {
	svc := &service{spec: spec, wake: make(chan struct{}, 1)}
	s.mu.Lock()
	s.services = append(s.services, svc)
	s.mu.Unlock()
	go s.supervise(svc)
}

func (s *supervisor) supervise(svc *service) {
	for {
		s.mu.Lock()
		spec := svc.spec
		s.mu.Unlock()
		if spec.Held {
			<-svc.wake
			continue
		}
		log := s.logs[spec.Name]
		pid, ended, err := s.spawn(spec.Program, spec.Args, spec.Env, []*os.File{nil, log, log})
		var exit string
		if err != nil {
			exit = err.Error()
		} else {
			s.mu.Lock()
			svc.pid = pid
			s.mu.Unlock()
			exit = describe(<-ended)
		}
		s.mu.Lock()
		svc.pid, svc.lastExit = 0, exit
		svc.restarts++
		s.mu.Unlock()
		slog.Info("service ended", "service", spec.Name, "exit", exit)
		select {
		case <-svc.wake: // an order came: obey at once
		case <-time.After(restartDelay):
		}
	}
}

// change replaces a service's spec by what edit makes of it and restarts it.
func (s *supervisor) change(name string, edit func(*Service)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.services, func(svc *service) bool { return svc.spec.Name == name })
	if i < 0 {
		return fmt.Errorf("no service %q on this machine", name)
	}
	svc := s.services[i]
	edit(&svc.spec)
	select {
	case svc.wake <- struct{}{}:
	default:
	}
	if svc.pid != 0 {
		if err := syscall.Kill(svc.pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop %s: %w", name, err)
		}
	}
	return nil
}

func (s *supervisor) status() []ServiceStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]ServiceStatus, 0, len(s.services))
	for _, svc := range s.services {
		list = append(list, ServiceStatus{Name: svc.spec.Name, PID: svc.pid, Restarts: svc.restarts, LastExit: svc.lastExit})
	}
	return list
}

// runOnce runs a program to its end with the given input, and returns what it
// wrote and whether it succeeded.
func (s *supervisor) runOnce(args []string, input io.Reader, output io.Writer) error {
	inRead, inWrite, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make a pipe: %w", err)
	}
	outRead, outWrite, err := os.Pipe()
	if err != nil {
		_, _ = inRead.Close(), inWrite.Close()
		return fmt.Errorf("make a pipe: %w", err)
	}
	defer outRead.Close()
	_, ended, err := s.spawn("", args, nil, []*os.File{inRead, outWrite, outWrite})
	_, _ = inRead.Close(), outWrite.Close()
	if err != nil {
		_ = inWrite.Close()
		return err
	}
	go func() {
		// A program that ends early closes its end; the rest is dropped.
		_, _ = io.Copy(inWrite, input)
		_ = inWrite.Close()
	}()
	if _, err := io.Copy(output, outRead); err != nil {
		return fmt.Errorf("read the output of %s: %w", args[0], err)
	}
	if status := <-ended; status.ExitStatus() != 0 {
		return fmt.Errorf("%s: %s", args[0], describe(status))
	}
	return nil
}

func describe(status syscall.WaitStatus) string {
	if status.Signaled() {
		return "killed by " + status.Signal().String()
	}
	return fmt.Sprintf("exit status %d", status.ExitStatus())
}
