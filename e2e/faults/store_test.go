// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults_test

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// storeProxy stands between the agents and the object store, and does to the requests
// of one run what a bad network or a bad store would.
type storeProxy struct {
	proxy   *httputil.ReverseProxy
	backend *url.URL

	mu     sync.Mutex
	faults map[string]fault // by the run's key
	sent   map[string]int64 // bytes of the run's data that agents have sent
}

// fault is what happens to the requests of a run. The zero fault: nothing.
type fault struct {
	// down ends each connection without an answer; hanging never answers.
	down, hanging bool
	// failing is the share of requests that get status 500.
	failing float64
	// link bounds the bytes a second in each direction.
	link *rate.Limiter
	// instead is another store.
	instead *url.URL
	// onUpload and onDownload are called when data of the run is sent or asked for,
	// before that is passed on.
	onUpload, onDownload func()
}

// megabit is 1 Mbit/s.
func megabit() *rate.Limiter { return rate.NewLimiter(1e6/8, 16<<10) }

func newStoreProxy(backend *url.URL) *storeProxy {
	p := &storeProxy{backend: backend, faults: map[string]fault{}, sent: map[string]int64{}}
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	p.proxy = &httputil.ReverseProxy{Transport: transport, ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
		Rewrite: func(r *httputil.ProxyRequest) {
			_, f := p.lookUp(r.In)
			to := p.backend
			if f.instead != nil {
				to = f.instead
			}
			r.Out.URL.Scheme, r.Out.URL.Host = to.Scheme, to.Host
			r.Out.Host = r.In.Host // it is signed
			if f.link != nil && r.Out.Body != nil {
				r.Out.Body = slowly{r.Out.Body, r.In.Context(), f.link}
			}
		},
		ModifyResponse: func(resp *http.Response) error {
			if _, f := p.lookUp(resp.Request); f.link != nil {
				resp.Body = slowly{resp.Body, resp.Request.Context(), f.link}
			}
			return nil
		}}
	return p
}

// set decides what happens to a run from now on.
func (p *storeProxy) set(run string, f fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults[run] = f
}

// uploaded is how many bytes of the run's data agents have sent.
func (p *storeProxy) uploaded(run string) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent[run]
}

// lookUp finds the run of a request by its object or by what it lists.
func (p *storeProxy) lookUp(r *http.Request) (string, fault) {
	name := strings.TrimPrefix(r.URL.Path, "/checkpoints/")
	if prefix := r.URL.Query().Get("prefix"); prefix != "" {
		name = prefix
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for run, f := range p.faults {
		if strings.HasPrefix(name, run+"/") {
			return run, f
		}
	}
	return "", fault{}
}

func (p *storeProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	run, f := p.lookUp(r)
	if strings.Contains(r.URL.Path, "/_chunks/") {
		switch {
		case r.Method == http.MethodPut:
			if f.onUpload != nil {
				f.onUpload()
			}
			r.Body = counted{r.Body, func(n int) {
				p.mu.Lock()
				defer p.mu.Unlock()
				p.sent[run] += int64(n)
			}}
		case r.Method == http.MethodGet && f.onDownload != nil:
			f.onDownload()
		}
	}
	switch {
	case f.hanging:
		<-r.Context().Done()
	case f.down:
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
			_ = conn.Close()
		}
	case rand.Float64() < f.failing:
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>InternalError</Code><Message>We encountered an internal error. Please try again.</Message></Error>`)
	default:
		p.proxy.ServeHTTP(w, r)
	}
}

// slowly reads no faster than a link is.
type slowly struct {
	io.ReadCloser
	ctx  context.Context
	link *rate.Limiter
}

func (s slowly) Read(b []byte) (int, error) {
	n, err := s.ReadCloser.Read(b[:min(len(b), s.link.Burst())])
	if n > 0 {
		if waited := s.link.WaitN(s.ctx, n); waited != nil {
			return 0, waited
		}
	}
	return n, err
}

// counted tells how much was read of it.
type counted struct {
	io.ReadCloser
	count func(int)
}

func (c counted) Read(b []byte) (int, error) {
	n, err := c.ReadCloser.Read(b)
	c.count(n)
	return n, err
}

// serve starts the proxy on an address and returns what ends it.
func (p *storeProxy) serve(listener net.Listener) (stop func()) {
	server := &http.Server{Handler: p, ReadHeaderTimeout: 30 * time.Second}
	go func() { _ = server.Serve(listener) }()
	return func() { _ = server.Close() }
}
