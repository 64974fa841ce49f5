// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// A program that uses local clusters need not know that it is also their init:
// started under Argv0 it never gets to its main.
func init() {
	if len(os.Args) != 3 || os.Args[0] != Argv0 {
		return
	}
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "%s %s/%s: %v\n", Argv0, os.Args[1], os.Args[2], err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run() error {
	var spec Spec
	// The parent sends the spec when it has attached the network; if it died
	// before that, there is nothing to read and nothing stays behind.
	if err := json.NewDecoder(os.Stdin).Decode(&spec); err != nil {
		return fmt.Errorf("read the machine's spec: %w", err)
	}
	_ = os.Stdin.Close()
	slog.SetDefault(slog.New(slog.NewJSONHandler(os.Stderr, nil)))

	// Sockets and logs belong to the host: open them before the root changes.
	_ = os.Remove(spec.Socket)
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "unix", spec.Socket)
	if err != nil {
		return fmt.Errorf("listen on the control socket: %w", err)
	}
	logs := map[string]*os.File{}
	for _, s := range spec.Services {
		f, err := os.OpenFile(filepath.Join(spec.LogDir, s.Name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("open the log of %s: %w", s.Name, err)
		}
		logs[s.Name] = f
	}
	if spec.Node != nil {
		if err := enterRoot(spec.Node); err != nil {
			return err
		}
		if err := configure(spec.Node); err != nil {
			return err
		}
	} else if err := privateProc(); err != nil {
		return err
	}

	sup := newSupervisor(logs)
	go sup.reap()
	for _, s := range spec.Services {
		sup.add(s)
	}
	server := &http.Server{Handler: handler(sup), ReadHeaderTimeout: 10 * time.Second}
	go func() {
		if err := server.Serve(listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
			slog.Error("control socket failed", "error", err)
		}
	}()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	<-stop
	// The end of PID 1 is the end of all processes of its namespace.
	return nil
}
