// SPDX-License-Identifier: Apache-2.0

// Package monitor samples a node's GPUs at a fixed interval, attributes each device
// to the pods that hold it, and keeps what they did: the newest samples, the sum of
// each pod, the errors of each GPU.
package monitor

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/spotbench/spotbench/pkg/telemetry"
	"github.com/spotbench/spotbench/pkg/telemetry/health"
	"github.com/spotbench/spotbench/pkg/telemetry/podresources"
)

// Reader reads every device of the node. What could be read is good even if there
// is an error.
type Reader interface {
	Read() (telemetry.Reading, error)
}

// Holders says which containers hold which device.
type Holders interface {
	Holders(ctx context.Context) (map[string][]podresources.Holder, error)
}

// Pod names a pod of this node.
type Pod struct{ Namespace, Name string }

// Monitor is one node's sampler. Its methods may be called from any goroutine.
type Monitor struct {
	reader   Reader
	holders  Holders
	interval time.Duration
	log      *slog.Logger

	mu       sync.Mutex
	pods     map[Pod]*account
	snapshot Snapshot
	health   *health.Tracker

	known   map[string]telemetry.Device // GPUs that were read, by UUID; Run's own
	asked   time.Time                   // when the holders were last asked for; Run's own
	told    time.Time                   // when the kubelet last answered
	holding map[string][]podresources.Holder
}

// account is what is kept of a pod.
type account struct {
	telemetry.Accumulator
	seen time.Time
}

// Snapshot is what is known of a node's devices at one moment.
type Snapshot struct {
	// At is the moment of the newest reading, zero before the first.
	At      time.Time
	Devices []Device
	// GPUs has what was counted of each GPU since the agent started, by UUID.
	GPUs map[string]Counted
}

// Device is a device's newest sample and who holds it. The sample of a GPU that is lost
// is empty.
type Device struct {
	telemetry.Sample
	Holders []podresources.Holder
}

// Counted are the events of one GPU.
type Counted struct {
	// XIDs is how often each XID was reported, LastXID the newest (0: none).
	XIDs    map[int]int
	LastXID int
	// ClockEvents is how often each reason for low clocks began, in the order of
	// telemetry.Reasons.
	ClockEvents [16]int
	reasons     telemetry.ClocksEventReasons
	known       bool
}

const (
	// holdersEvery is how often the kubelet is asked who holds what.
	holdersEvery = time.Second
	// heldFor is how long its last answer holds while it gives none.
	heldFor = time.Minute
	// slowRead is when a reading that takes long is said to, and lastRead how long one is
	// waited for when the monitor ends.
	slowRead = 10 * time.Second
	lastRead = 2 * time.Second
	// keepFor is how long a pod that holds nothing any more is kept, if nobody has it forgotten.
	keepFor = time.Hour
)

// New makes a Monitor for the node's GPUs; Run starts it.
func New(reader Reader, holders Holders, limits health.Limits, interval time.Duration, log *slog.Logger) *Monitor {
	return &Monitor{reader: reader, holders: holders, interval: interval, log: log, known: map[string]telemetry.Device{}, pods: map[Pod]*account{},
		snapshot: Snapshot{GPUs: map[string]Counted{}}, health: health.New(limits, time.Now())}
}

// Run samples until ctx ends. A GPU or a kubelet that cannot be asked is logged
// once per change, and asked again. It reports whether nothing is being read any more,
// so that the reader may be closed: a driver that hangs is not waited for.
func (m *Monitor) Run(ctx context.Context) (idle bool) {
	ticker := time.NewTicker(m.interval)
	defer ticker.Stop()
	said := ""
	results := make(chan error, 1)
	for {
		go func() { results <- m.sample(ctx) }()
		idle, err := m.await(ctx, results)
		switch {
		case ctx.Err() != nil:
			return idle
		case err != nil && err.Error() != said:
			said = err.Error()
			m.log.Warn("GPU telemetry is incomplete", "error", said)
		case err == nil && said != "":
			said = ""
			m.log.Info("GPU telemetry is complete again")
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return true
		}
	}
}

// await waits for a sample, however long it takes, and for a moment more when ctx has
// ended. It says so once if that is long.
func (m *Monitor) await(ctx context.Context, results <-chan error) (came bool, err error) {
	slow := time.NewTimer(slowRead)
	defer slow.Stop()
	for {
		select {
		case err := <-results:
			return true, err
		case <-slow.C:
			m.log.Warn("the GPUs' driver does not answer; it is waited for", "for", slowRead)
		case <-ctx.Done():
			select {
			case err := <-results:
				return true, err
			case <-time.After(lastRead):
				return false, nil
			}
		}
	}
}

func (m *Monitor) sample(ctx context.Context) error {
	reading, err := m.reader.Read()
	now := time.Now()
	if now.Sub(m.asked) >= min(holdersEvery, m.interval) {
		ctx, cancel := context.WithTimeout(ctx, holdersEvery)
		holding, holdersErr := m.holders.Holders(ctx)
		cancel()
		m.asked = now
		// A kubelet that is restarted must not cost the pods their labels.
		if holdersErr == nil || now.Sub(m.told) > heldFor {
			m.holding, m.told = holding, now
		}
		if err == nil {
			err = holdersErr
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.count(reading)
	if err == nil || len(reading.Samples)+len(reading.Lost) > 0 {
		m.attribute(now, reading) // else the library itself failed, and the last reading gets old
	}
	m.health.Observe(now, reading)
	for _, x := range reading.XIDs {
		m.log.Warn("the driver reported an error of a GPU", "xid", x.Code, "meaning", health.Meaning(x.Code), "gpu", x.GPU, "cause", health.Cause(x.Code))
	}
	return err
}

func (m *Monitor) attribute(now time.Time, reading telemetry.Reading) {
	devices := make([]Device, 0, len(reading.Samples))
	pods := map[string]map[Pod]bool{} // of each whole GPU
	for _, s := range reading.Samples {
		d := Device{Sample: s, Holders: m.heldBy(s.Device)}
		devices = append(devices, d)
		for _, h := range d.Holders {
			gpu := s.GPUUUID()
			if pods[gpu] == nil {
				pods[gpu] = map[Pod]bool{}
			}
			pods[gpu][Pod{h.Namespace, h.Pod}] = true
		}
	}
	for _, lost := range reading.Lost {
		// It has no values; what was counted of it is still of interest.
		if d, ok := m.known[lost.UUID]; ok {
			devices = append(devices, Device{Sample: telemetry.Sample{Device: d, At: now}, Holders: m.heldBy(d)})
		}
	}
	board := map[string]*telemetry.Sample{}
	for i := range reading.Samples {
		if s := &reading.Samples[i]; s.MIG == nil {
			board[s.UUID] = s
			m.known[s.UUID] = s.Device
		}
	}
	seen := map[Pod][]telemetry.Seen{}
	for _, d := range devices {
		sample := d.Sample
		if sample.Empty() {
			continue
		}
		if d.MIG != nil {
			sample = withBoard(sample, board[d.MIG.Parent])
		}
		told := map[Pod]bool{} // a pod may hold two shares of a GPU
		for _, h := range d.Holders {
			pod := Pod{h.Namespace, h.Pod}
			if !told[pod] {
				told[pod] = true
				seen[pod] = append(seen[pod], telemetry.Seen{Sample: sample, Neighbours: len(pods[d.GPUUUID()]) - 1})
			}
		}
	}
	for pod, samples := range seen {
		if m.pods[pod] == nil {
			m.pods[pod] = &account{}
		}
		m.pods[pod].seen = now
		m.pods[pod].Add(now, samples, nil)
	}
	for pod, a := range m.pods {
		if now.Sub(a.seen) > keepFor {
			delete(m.pods, pod)
		} else if len(reading.XIDs) > 0 && m.stillHolds(pod, a.seen, now) {
			a.Add(now, nil, reading.XIDs)
		}
	}
	m.snapshot.At, m.snapshot.Devices = now, devices
}

// stillHolds says whether an error of its GPU may be laid to a pod: the pod holds a
// device, or held one when the last that could be read was read. A GPU that has
// fallen off the bus is not read any more, and that is when it matters.
func (m *Monitor) stillHolds(pod Pod, seen, now time.Time) bool {
	if now.Sub(seen) <= max(10*m.interval, 10*time.Second) {
		return true
	}
	for _, holders := range m.holding {
		for _, h := range holders {
			if (Pod{h.Namespace, h.Pod}) == pod {
				return true
			}
		}
	}
	return false
}

// withBoard completes an instance's sample with what is known of its GPU only.
func withBoard(s telemetry.Sample, board *telemetry.Sample) telemetry.Sample {
	if board == nil {
		return s
	}
	for _, info := range telemetry.Metrics {
		if v, ok := board.Value(info.Metric); ok && !info.PerInstance {
			s.Set(info.Metric, v)
		}
	}
	return s
}

func (m *Monitor) heldBy(d telemetry.Device) []podresources.Holder {
	if held, ok := m.holding[d.UUID]; ok {
		return held
	}
	name := "nvidia" + strconv.Itoa(d.Minor)
	if d.MIG != nil {
		name += "/gi" + strconv.Itoa(d.MIG.GPUInstance)
	}
	return m.holding[name]
}

// count follows the events of each GPU.
func (m *Monitor) count(reading telemetry.Reading) {
	change := func(gpu string, f func(*Counted)) {
		c := m.snapshot.GPUs[gpu]
		f(&c)
		m.snapshot.GPUs[gpu] = c
	}
	for _, x := range reading.XIDs {
		change(x.GPU, func(c *Counted) {
			// Replaced, not changed: a Snapshot that was given away has the old one.
			c.XIDs, c.LastXID = maps.Clone(c.XIDs), x.Code
			if c.XIDs == nil {
				c.XIDs = map[int]int{}
			}
			c.XIDs[x.Code]++
		})
	}
	for i := range reading.Samples {
		s := &reading.Samples[i]
		if _, ok := s.Value(telemetry.ClockEvents); !ok || s.MIG != nil {
			continue
		}
		change(s.UUID, func(c *Counted) {
			for i, reason := range telemetry.Reasons {
				if c.known && s.Reasons&^c.reasons&reason.Reason != 0 {
					c.ClockEvents[i]++
				}
			}
			c.reasons, c.known = s.Reasons, true
		})
	}
}

// Snapshot is the newest state. It may be kept, and must not be changed.
func (m *Monitor) Snapshot() Snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.snapshot
	s.GPUs = maps.Clone(s.GPUs)
	s.Devices = slices.Clone(s.Devices)
	return s
}

// Interval is the time between two samples.
func (m *Monitor) Interval() time.Duration { return m.interval }

// Health is what is wrong with the GPUs at the moment.
func (m *Monitor) Health() health.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.health.Status(time.Now())
}

// Summary is what the pod's GPUs did so far; false if none of its GPUs was seen.
func (m *Monitor) Summary(pod Pod) (telemetry.Summary, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a, ok := m.pods[pod]
	if !ok {
		return telemetry.Summary{}, false
	}
	return a.Summary(), true
}

// Forget drops what is kept about a pod that is gone.
func (m *Monitor) Forget(pod Pod) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.pods, pod)
}
