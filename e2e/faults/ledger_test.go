// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults_test

import (
	"encoding/json"
	"net"
	"slices"
	"sync"
	"time"
)

// ledger hears of every step that a worker does, from outside the programs under test.
type ledger struct {
	conn net.PacketConn

	mu   sync.Mutex
	pods map[string][]stretch // run → its pods, in the order in which they began
}

// stretch is what one pod did of a run.
type stretch struct {
	pod string
	// after is the step that it went on from; begun when it said so.
	after int
	begun time.Time
	// last is its newest step.
	last int
	done map[int]time.Time
}

func openLedger(address string) (*ledger, error) {
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		return nil, err
	}
	l := &ledger{conn: conn, pods: map[string][]stretch{}}
	go l.listen()
	return l, nil
}

// message is what a worker says. Each comes several times.
type message struct {
	Run, Pod string
	Step     int
	At       time.Time
	Began    bool
}

func (l *ledger) listen() {
	buffer := make([]byte, 1<<16)
	for {
		n, _, err := l.conn.ReadFrom(buffer)
		if err != nil {
			return
		}
		var messages []message
		if json.Unmarshal(buffer[:n], &messages) != nil {
			continue
		}
		l.mu.Lock()
		for _, m := range messages {
			l.enter(m)
		}
		l.mu.Unlock()
	}
}

func (l *ledger) enter(m message) {
	pods := l.pods[m.Run]
	at := slices.IndexFunc(pods, func(s stretch) bool { return s.pod == m.Pod })
	if at < 0 {
		pods = append(pods, stretch{pod: m.Pod, done: map[int]time.Time{}})
		at = len(pods) - 1
		l.pods[m.Run] = pods
	}
	p := &pods[at]
	if m.Began {
		p.after, p.begun = m.Step, m.At
	} else {
		p.done[m.Step] = m.At
	}
	p.last = max(p.last, m.Step)
}

// of are the stretches of a run so far.
func (l *ledger) of(run string) []stretch {
	l.mu.Lock()
	defer l.mu.Unlock()
	pods := make([]stretch, len(l.pods[run]))
	for i, p := range l.pods[run] {
		pods[i] = p
		pods[i].done = make(map[int]time.Time, len(p.done))
		for step, at := range p.done {
			pods[i].done[step] = at
		}
	}
	return pods
}
