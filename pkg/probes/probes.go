// SPDX-License-Identifier: Apache-2.0

// Package probes answers what Kubernetes and Prometheus ask of every program:
// GET /healthz, /readyz and /metrics.
package probes

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Always is the readiness of a program that is ready as long as it answers.
func Always() error { return nil }

// Handle adds the three paths to mux. /readyz answers 503 with the text of the
// error while ready returns one.
func Handle(mux *http.ServeMux, metrics prometheus.Gatherer, ready func() error) {
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
}

// Start serves the three paths on address until stop is called, and returns once
// it listens. flag is the name of the flag that gave the address, for the error.
func Start(ctx context.Context, flag, address string, metrics prometheus.Gatherer, ready func() error) (stop func(), err error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w; choose a free host:port, for example :9090", flag, address, err)
	}
	mux := http.NewServeMux()
	Handle(mux, metrics, ready)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second}
	// Serve returns only once it is shut down: a listener does not fail by itself.
	go func() { _ = server.Serve(listener) }()
	return func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		_ = server.Shutdown(ctx)
	}, nil
}
