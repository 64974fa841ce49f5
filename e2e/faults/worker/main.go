// SPDX-License-Identifier: Apache-2.0

// Command worker is a benchmark that can be counted: it does numbered steps, keeps them
// in its checkpoint directory, and tells a ledger of each as it is done. A worker that
// goes on where another stopped does so only if no step is missing.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// interrupted is the exit code of a worker that was told to stop; bench-runner's is the same.
const interrupted = 75

type worker struct {
	dir, results, run, pod string
	steps                  int
	every                  time.Duration
	blob                   int64
	rewrite                bool
	ledger                 net.Conn
	recent                 []message
	progress               *os.File
}

func main() {
	var w worker
	var report string
	flag.StringVar(&w.dir, "dir", "/checkpoint", "checkpoint directory")
	flag.StringVar(&w.results, "results", "", "directory of the result; empty for none")
	flag.StringVar(&w.run, "run", "", "name to report under")
	flag.StringVar(&report, "report", "", "UDP address of the ledger")
	flag.IntVar(&w.steps, "steps", 100, "steps to do")
	flag.DurationVar(&w.every, "every", 100*time.Millisecond, "time that a step takes")
	flag.Int64Var(&w.blob, "blob", 0, "bytes of other state beside the steps")
	flag.BoolVar(&w.rewrite, "rewrite", false, "make that state anew at each SIGUSR1")
	flag.Parse()
	w.pod = os.Getenv("POD_NAME")
	code, err := w.work(report)
	if err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
	}
	os.Exit(code)
}

// message is what the ledger is told.
type message struct {
	Run, Pod string
	Step     int
	At       time.Time
	// Began says that the worker goes on after this step.
	Began bool
}

// told is how many messages a datagram has: the newest, and those before in case the
// datagrams that had them were lost.
const told = 8

func (w *worker) tell(m message) {
	m.Run, m.Pod, m.At = w.run, w.pod, time.Now()
	w.recent = append(w.recent, m)
	w.recent = w.recent[max(0, len(w.recent)-told):]
	w.report()
}

func (w *worker) report() {
	if data, err := json.Marshal(w.recent); err == nil && w.ledger != nil {
		_, _ = w.ledger.Write(data) // a ledger that cannot be reached holds nothing up
	}
}

func (w *worker) work(report string) (code int, err error) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGUSR1)
	if report != "" {
		if w.ledger, err = new(net.Dialer).DialContext(context.Background(), "udp", report); err != nil {
			return 1, err
		}
	}
	done, err := w.resume()
	if err != nil {
		return 1, err
	}
	if _, err := os.Stat(filepath.Join(w.dir, "state")); errors.Is(err, fs.ErrNotExist) && w.blob > 0 {
		if err := w.makeState(); err != nil {
			return 1, err
		}
	}
	w.tell(message{Step: done, Began: true})
	ticks := time.NewTicker(w.every)
	for done < w.steps {
		select {
		case <-ticks.C:
			done++
			if _, err := fmt.Fprintf(w.progress, "%d %s\n", done, w.pod); err != nil {
				return 1, err
			}
			w.tell(message{Step: done})
		case s := <-signals:
			if s == syscall.SIGTERM {
				return interrupted, nil
			}
			if w.rewrite {
				if err := w.makeState(); err != nil {
					return 1, err
				}
			}
		}
	}
	w.report() // no later message has the last ones
	return w.finish(done)
}

// resume reads how far the work is, and wants every step of it.
func (w *worker) resume() (int, error) {
	var err error
	if w.progress, err = os.OpenFile(filepath.Join(w.dir, "progress"), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600); err != nil {
		return 0, err
	}
	data, err := io.ReadAll(w.progress)
	if err != nil {
		return 0, err
	}
	// A line that was not finished is a step that was not.
	whole := data[:bytes.LastIndexByte(data, '\n')+1]
	if err := w.progress.Truncate(int64(len(whole))); err != nil {
		return 0, err
	}
	done := 0
	for lines := bufio.NewScanner(bytes.NewReader(whole)); lines.Scan(); {
		number, _, _ := strings.Cut(lines.Text(), " ")
		if n, err := strconv.Atoi(number); err != nil || n != done+1 {
			return 0, fmt.Errorf("after step %d comes %q: the progress is not whole", done, lines.Text())
		}
		done++
	}
	return done, nil
}

// makeState replaces the other state by as much of it that cannot be compressed.
func (w *worker) makeState() error {
	tmp, err := os.CreateTemp(w.dir, ".state-*")
	if err != nil {
		return err
	}
	_, err = io.CopyN(tmp, rand.Reader, w.blob)
	if err := errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), filepath.Join(w.dir, "state"))
}

// finish writes a result as vLLM's benchmark would, in which a request is a step.
func (w *worker) finish(done int) (int, error) {
	if w.results == "" {
		return 0, nil
	}
	data, err := json.Marshal(map[string]any{"date": time.Now().Format("20060102-150405"), "backend": "vllm", "model_id": "worker", "tokenizer_id": "worker",
		"num_prompts": w.steps, "completed": done, "duration": (time.Duration(done) * w.every).Seconds(), "request_rate": "inf", "max_concurrency": 1,
		"total_input_tokens": done, "total_output_tokens": done, "request_throughput": 1 / w.every.Seconds(), "output_throughput": 1 / w.every.Seconds(),
		"total_token_throughput": 2 / w.every.Seconds()})
	if err != nil {
		return 1, err
	}
	tmp := filepath.Join(w.results, ".result")
	if err := os.WriteFile(tmp, data, 0o644); err != nil {
		return 1, err
	}
	if err := os.Rename(tmp, filepath.Join(w.results, "result.json")); err != nil {
		return 1, err
	}
	return 0, nil
}
