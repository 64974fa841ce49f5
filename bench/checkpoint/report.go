// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"os"
	"slices"
	"strings"
)

// sample is one measurement.
type sample struct {
	step, who    string
	seconds, cpu float64
	written      int64
}

type report struct {
	Size      int64
	CPUs      int
	Rounds    int
	Processor string
	samples   []sample
}

func (r *report) add(s sample) { r.samples = append(r.samples, s) }

// summary is what is written as JSON: medians of all rounds.
type summary struct {
	Size      int64  `json:"sizeBytes"`
	CPUs      int    `json:"cpus"`
	Processor string `json:"processor"`
	Rounds    int    `json:"rounds"`
	Caches    string `json:"caches"`
	Sync      bool   `json:"syncIncluded"`
	Rows      []row  `json:"rows"`
}

type row struct {
	Step    string    `json:"step"`
	Who     string    `json:"who"`
	Seconds float64   `json:"seconds"`
	All     []float64 `json:"allSeconds"`
	CPU     float64   `json:"cpuSeconds"`
	Written int64     `json:"writtenBytes"`
	// Ratio is this peer's time divided by ours.
	Ratio float64 `json:"ratio,omitempty"`
}

func (r *report) summary() summary {
	s := summary{Size: r.Size, CPUs: r.CPUs, Processor: r.Processor, Rounds: r.Rounds, Caches: "warm", Sync: true}
	for _, step := range []string{stepFirst, stepChanged, stepAgain, stepRestore} {
		own, found := r.row(step, ours)
		if !found {
			continue
		}
		s.Rows = append(s.Rows, own)
		for _, who := range []string{tarZstd, copying} {
			peerStep := step
			if step == stepAgain {
				peerStep = stepChanged // to them it is the same
			}
			peer, found := r.row(peerStep, who)
			if !found {
				continue
			}
			peer.Step, peer.Ratio = step, peer.Seconds/own.Seconds
			s.Rows = append(s.Rows, peer)
		}
	}
	return s
}

func (r *report) row(step, who string) (row, bool) {
	result := row{Step: step, Who: who}
	var cpu []float64
	for _, s := range r.samples {
		if s.step == step && s.who == who {
			result.All, cpu = append(result.All, s.seconds), append(cpu, s.cpu)
			result.Written = s.written
		}
	}
	if len(cpu) == 0 {
		return row{}, false
	}
	result.Seconds, result.CPU = median(result.All), median(cpu)
	return result, true
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// processor is the name of this machine's CPU.
func processor() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown CPU"
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if name, value, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown CPU"
}
