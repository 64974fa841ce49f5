// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/spotbench/spotbench/pkg/localcluster/node"
)

func TestTheAgentIsKilledAtEachPhase(t *testing.T) {
	t.Parallel()
	tests := []struct {
		phase, name string
		words       []string // of the line in the agent's log
		upload      bool     // in the middle of the upload instead
		unseen      float64  // seconds in which no agent sees the worker's end, for the record
		most        float64  // seconds of work that may be lost
		kept        string
	}{
		{phase: "as it taints the node", name: "killed-taint", words: []string{`"phase":"notice"`}, most: 2, kept: "the checkpoint of the next agent, and its record"},
		{phase: "as it uploads the checkpoint", name: "killed-save", upload: true, most: 2, kept: "the checkpoint of the next agent, which went on from what was sent"},
		// What the worker does between the checkpoint and its end is lost if nobody is
		// there to hold its volume when the kubelet removes it: up to its grace of 5 s.
		{phase: "as it evicts the pod", name: "killed-evict", words: []string{`"phase":"evict"`}, most: 6, unseen: 6, kept: "the checkpoint on the notice; the next agent finishes the record"},
		{phase: "as it records the outcome", name: "killed-record", words: []string{`"phase":"final checkpoint"`}, most: 2, kept: "both checkpoints; the next agent finishes the record"},
	}
	for _, tt := range tests {
		t.Run(tt.phase, func(t *testing.T) {
			t.Parallel()
			machine := pool.borrow(t, 1)[0]
			r := start(t, machine, job{name: tt.name, blob: "16Mi", steps: 250})
			r.awaitSteps(1, 30)
			open(t, tt.name, refuge)
			killed := make(chan struct{})
			kill := sync.OnceFunc(func() { killAgent(t, machine); close(killed) })
			if tt.upload {
				store.set(r.key, fault{onUpload: kill})
			} else {
				onLogLine(t, machine, kill, tt.words...)
			}
			notice(t, machine, 30*time.Second)
			select {
			case <-killed:
			case <-time.After(30 * time.Second):
				t.Fatal("the agent did not come to that phase within 30 s")
			}
			did := r.finished(2)
			lost := lostBetween(did[0], did[1])
			if lost > tt.most {
				t.Errorf("%.1f s of work were lost", lost)
			}
			r.recordedWithin(tolerance+tt.unseen, lost)
			findings.add(t, "the agent is killed (SIGKILL) "+tt.phase, lost, tt.kept)
		})
	}
}

func TestTheKubeletIsKilledOnANotice(t *testing.T) {
	t.Parallel()
	machine := pool.borrow(t, 1)[0]
	r := start(t, machine, job{name: "kubelet-killed", blob: "8Mi", steps: 250})
	r.awaitSteps(1, 30)
	open(t, r.job.name, refuge)
	if err := stage.Cluster.StopService(t.Context(), machine, node.ServiceKubelet); err != nil {
		t.Fatal(err)
	}
	sent := notice(t, machine, 30*time.Second)
	t.Cleanup(func() {
		if err := stage.Cluster.StartService(cleanupContext(t), machine, node.ServiceKubelet); err != nil {
			t.Error(err)
		}
	})
	eventually(t, 35*time.Second, "the last checkpoint", func() bool {
		latest, found, err := checkpoints(t).Latest(t.Context(), r.key)
		return err == nil && found && latest.Meta["final"] == "done"
	})
	if took := time.Since(sent); took > 30*time.Second {
		t.Errorf("the last checkpoint was whole %s after the notice", took)
	}
	// Its Job waits until somebody says that the pod has ended.
	if err := stage.Cluster.StartService(t.Context(), machine, node.ServiceKubelet); err != nil {
		t.Fatal(err)
	}
	did := r.finished(2)
	lost := lostBetween(did[0], did[1])
	if lost > 2 {
		t.Errorf("%.1f s of work were lost", lost)
	}
	r.recorded(lost)
	findings.add(t, "the kubelet is killed and stays away during a notice of 30 s", lost, "the checkpoint after the agent stopped the container itself")
}

func TestANodeIsCutOffWithoutANotice(t *testing.T) {
	t.Parallel()
	const interval = 4
	machine := pool.borrow(t, 1)[0]
	r := start(t, machine, job{name: "cut-off", blob: "8Mi", interval: fmt.Sprintf("%ds", interval), replaceAtOnce: true, steps: 500})
	r.awaitSteps(1, 30)
	r.awaitGeneration(nil)
	r.awaitSteps(1, 80)
	open(t, r.job.name, refuge)
	if err := stage.Cluster.Partition(t.Context(), machine); err != nil {
		t.Fatal(err)
	}
	heal := sync.OnceValue(func() error { return stage.Cluster.Heal(cleanupContext(t), machine) })
	t.Cleanup(func() {
		if err := heal(); err != nil {
			t.Error(err)
		}
	})
	time.Sleep(time.Second) // what was on its way to the ledger has come
	cut := steps.of(r.job.name)[0].last
	r.awaitSteps(2, 1)
	// The node comes back with the pod on it, which has gone on all the time.
	if err := heal(); err != nil {
		t.Fatal(err)
	}
	did := r.finished(2)
	lost := did[0].since(did[1].after, cut)
	if did[1].after > cut || lost > 2*interval+2 {
		t.Errorf("%.1f s of the work until the cut were lost, want no more than since the periodic checkpoint before", lost)
	}
	r.recorded()
	latest, _, err := checkpoints(t).Latest(t.Context(), r.key)
	if err != nil || latest.Meta["pod"] != did[1].pod {
		t.Errorf("the newest checkpoint is of %s, %v; want %s, which went on", latest.Meta["pod"], err, did[1].pod)
	}
	findings.add(t, "the node is cut off with no notice, and comes back later with the pod still at work", lost, fmt.Sprintf("the periodic checkpoint (every %d s); what the old pod saves later is refused", interval))
}

func TestTheClocksDisagreeByMinutes(t *testing.T) {
	t.Parallel()
	for name, off := range map[string]time.Duration{"clock-behind": 10 * time.Minute, "clock-ahead": -5 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			machine := pool.borrow(t, 1)[0]
			r := start(t, machine, job{name: name, blob: "8Mi"})
			// The time in the notice is the cloud's, which the node takes for its own.
			lost := interruptOnce(t, r, machine, 30*time.Second+off)
			if lost > 2 {
				t.Errorf("%.1f s of work were lost", lost)
			}
			evicted := r.recorded(lost).Interruptions[0]
			if took := evicted.EvictedAt.Sub(evicted.NoticeAt); took > 15*time.Second {
				t.Errorf("evicted %s after the notice: the machine may be gone by then", took)
			}
			findings.add(t, fmt.Sprintf("the time in the notice is %s off, by the node's clock", off), lost, "the checkpoint on the notice, made at once")
		})
	}
}
