// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// connection sends requests over one connection and reads no more of the answers
// than it must: the generator shares the processors with what it measures.
type connection struct {
	net.Conn
	in *bufio.Reader
}

func dial(ctx context.Context, address string) (*connection, error) {
	address, secure := host(address)
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if secure {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the server is this benchmark's own
	}
	return &connection{c, bufio.NewReaderSize(c, 64<<10)}, nil
}

// do sends a whole request and reads the answer.
func (c *connection) do(request []byte) error {
	_, err := c.exchange(request, io.Discard)
	return err
}

// exchange sends a whole request, reads the answer, and gives the length of its content,
// which goes to out.
func (c *connection) exchange(request []byte, out io.Writer) (read int64, err error) {
	if _, err := c.Write(request); err != nil {
		return 0, err
	}
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(line) < 12 || line[9] != '2' {
		rest, _ := c.in.Peek(min(c.in.Buffered(), 600)) // it is only for the message
		return 0, fmt.Errorf("answer %q to %.200q\n%s", bytes.TrimSpace(line), request, rest)
	}
	length, chunked := 0, false
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		if len(line) <= 2 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, err
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = true
		}
	}
	if !chunked {
		return c.content(length, out)
	}
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return read, err
		}
		size, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 16, 32)
		if err != nil {
			return read, err
		}
		if _, err := c.content(int(size), out); err != nil {
			return read, err
		}
		if _, err := c.in.Discard(2); err != nil {
			return read, err
		}
		if size == 0 {
			return read, nil
		}
		read += size
	}
}

// content passes a part of the answer on, or over.
func (c *connection) content(length int, out io.Writer) (int64, error) {
	if out == io.Discard {
		n, err := c.in.Discard(length)
		return int64(n), err
	}
	return io.CopyN(out, c.in, int64(length))
}

// request makes the text of a request.
func request(method, path, token, body string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: bench\r\n", method, path)
	if token != "" {
		fmt.Fprintf(&b, "Authorization: Bearer %s\r\n", token)
	}
	if body != "" {
		fmt.Fprintf(&b, "Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	b.WriteString("\r\n")
	b.WriteString(body)
	return []byte(b.String())
}

// observed is what a number of connections found.
type observed struct {
	PerSecond float64 `json:"perSecond"`
	P50       float64 `json:"p50Milliseconds"`
	P99       float64 `json:"p99Milliseconds"`
	requests  int
}

// load sends requests for a time over so many connections: one after the other, or,
// if rate is not 0, at set times so that there are rate of them in a second.
func load(ctx context.Context, address string, connections int, duration time.Duration, rate float64, next func(worker, n int) []byte) (observed, error) {
	ctx, cancel := context.WithTimeout(ctx, duration+30*time.Second)
	defer cancel()
	latencies := make([][]time.Duration, connections)
	group, ctx := errgroup.WithContext(ctx)
	begin := time.Now().Add(20 * time.Millisecond)
	for worker := range connections {
		group.Go(func() (err error) {
			c, err := dial(ctx, address)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, c.Close()) }()
			if deadline, ok := ctx.Deadline(); ok {
				if err := c.SetDeadline(deadline); err != nil {
					return err
				}
			}
			interval := time.Duration(0)
			if rate > 0 {
				interval = time.Duration(float64(connections) / rate * float64(time.Second))
			}
			due := begin.Add(interval * time.Duration(worker) / time.Duration(connections))
			for n := 0; ; n++ {
				text := next(worker, n)
				if rate > 0 || n == 0 {
					time.Sleep(time.Until(due))
				} else {
					due = time.Now()
				}
				if time.Since(begin) > duration || ctx.Err() != nil {
					return ctx.Err()
				}
				if err := c.do(text); err != nil {
					return err
				}
				latencies[worker] = append(latencies[worker], time.Since(due))
				due = due.Add(interval)
			}
		})
	}
	if err := group.Wait(); err != nil {
		return observed{}, err
	}
	return summarize(slices.Concat(latencies...), time.Since(begin)), nil
}

func summarize(latencies []time.Duration, took time.Duration) observed {
	if len(latencies) == 0 {
		return observed{}
	}
	slices.Sort(latencies)
	at := func(q float64) float64 {
		return float64(latencies[min(len(latencies)-1, int(q*float64(len(latencies))))].Microseconds()) / 1000
	}
	return observed{PerSecond: float64(len(latencies)) / took.Seconds(), P50: at(0.5), P99: at(0.99), requests: len(latencies)}
}

func parseConnections(text string) (out []int, err error) {
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil || n < 1 || n > 1000 {
			return nil, fmt.Errorf("-connections has %q, want numbers from 1 to 1000, separated by commas", part)
		}
		out = append(out, n)
	}
	return out, nil
}
