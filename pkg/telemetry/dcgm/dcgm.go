// SPDX-License-Identifier: Apache-2.0

// Package dcgm reads a node's GPUs through NVIDIA's Data Center GPU Manager: what
// NVML gives and, where the GPU can, profiling metrics.
package dcgm

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/NVIDIA/go-dcgm/pkg/dcgm"

	"github.com/spotbench/spotbench/pkg/telemetry"
)

// Where a Reader finds its host engine, beside an address.
const (
	// Embedded runs the engine in this process.
	Embedded = "embedded"
	// Start starts nv-hostengine as a child, and ends it in the end.
	Start = "start"
	// DefaultAddress is where an nv-hostengine of the node listens.
	DefaultAddress = "localhost:5555"
)

// Options say how to read.
type Options struct {
	// Engine is Embedded, Start, or the address of one that runs: tcp://host:port,
	// unix:///path, or host:port.
	Engine string
	// Library is the path of libdcgm.so.4, "" to have the dynamic linker find it.
	Library string
	// Interval is how often the fields are read from the hardware.
	Interval time.Duration
	// Instances gives the MIG instances of all GPUs with their UUIDs, which DCGM does
	// not know; nil where there are none.
	Instances func() []telemetry.Device
	Log       *slog.Logger
}

// ValidEngine says what is wrong with an Options.Engine; "" is left to the caller.
func ValidEngine(engine string) error {
	if engine == "" || engine == Embedded || engine == Start {
		return nil
	}
	if path, ok := strings.CutPrefix(engine, "unix://"); ok {
		if !strings.HasPrefix(path, "/") {
			return errors.New("give an absolute path, as in unix:///run/nvidia/hostengine.sock")
		}
		return nil
	}
	if _, _, err := net.SplitHostPort(strings.TrimPrefix(engine, "tcp://")); err != nil {
		return fmt.Errorf("use %s, %s, unix:///path or tcp://host:port (DCGM's port is 5555): %w", Embedded, Start, err)
	}
	return nil
}

// Reader reads every GPU of the node and every MIG instance.
type Reader struct {
	opts    Options
	lib     library
	session *session  // nil while there is no connection
	next    time.Time // when to try again to make one
	failed  error     // why there is none
}

// session is what is set up once with an engine: one group of entities, one group of
// fields, watched; nothing is created while reading.
type session struct {
	entities []entity
	group    dcgm.GroupHandle
	fields   dcgm.FieldHandle
	events   dcgm.FieldHandle
	ids      []dcgm.Short
	since    time.Time // of the events
	checked  time.Time // when the entities were last compared
}

type entity struct {
	dcgm.GroupEntityPair
	device telemetry.Device
}

const (
	retryEvery   = 5 * time.Second
	compareEvery = 10 * time.Second
	// most is how many values one call asks for. Each takes 4 KiB, twice.
	most = 128
)

// Open loads the library and connects to the engine.
func Open(opts Options) (*Reader, error) {
	lib, err := load(opts.Library)
	if err != nil {
		return nil, fmt.Errorf("DCGM: %w", err)
	}
	r := &Reader{opts: opts, lib: lib}
	if err := r.connect(); err != nil {
		return nil, fmt.Errorf("DCGM: %w", err)
	}
	return r, nil
}

// Close ends the session and, if the engine is ours, the engine.
func (r *Reader) Close() error {
	if r.session == nil {
		return nil
	}
	r.session = nil
	return dcgm.Shutdown()
}

// Profiling says whether profiling metrics are read.
func (r *Reader) Profiling() bool {
	return r.session != nil && slices.ContainsFunc(r.session.ids, func(id dcgm.Short) bool { return profiled(metricOf[id]) })
}

// Driver is the version of the NVIDIA driver, "" if there is no GPU to ask.
func (r *Reader) Driver() string {
	if r.session == nil || len(r.session.entities) == 0 {
		return ""
	}
	return r.session.entities[0].device.Driver
}

func (r *Reader) connect() error {
	if err := r.start(); err != nil {
		return err
	}
	s, err := r.watch()
	if err != nil {
		_ = dcgm.Shutdown()
		return err
	}
	r.session = s
	return nil
}

// start connects to the engine, or starts it.
func (r *Reader) start() error {
	needs := func(function string) error {
		if !r.lib.has(function) {
			return fmt.Errorf("%s lacks %s, which --dcgm %s needs", soname, function, r.opts.Engine)
		}
		return nil
	}
	var err error
	switch engine := r.opts.Engine; {
	case engine == Embedded:
		if err = needs(startEmbedded); err == nil {
			_, err = dcgm.Init(dcgm.Embedded)
		}
	case engine == Start:
		if err = needs(connectAddress); err == nil {
			_, err = dcgm.Init(dcgm.StartHostengine)
		}
	case strings.Contains(engine, "://") && r.lib.has(connectURL):
		_, err = dcgm.Init(dcgm.Standalone, engine)
	default:
		// The form that libraries before 4.5 know.
		path, unix := strings.CutPrefix(engine, "unix://")
		if err = needs(connectAddress); err == nil {
			_, err = dcgm.Init(dcgm.Standalone, strings.TrimPrefix(path, "tcp://"), map[bool]string{true: "1", false: "0"}[unix])
		}
	}
	if err != nil {
		return fmt.Errorf("host engine %s: %w", r.opts.Engine, err)
	}
	return nil
}

// watch sets up a session: the entities of the moment, watched.
func (r *Reader) watch() (*session, error) {
	s := &session{since: time.Now(), checked: time.Now()}
	var err error
	if s.entities, err = r.list(); err != nil {
		return nil, err
	}
	if len(s.entities) == 0 {
		return s, nil
	}
	supported := r.supported(s.entities)
	for _, f := range fields {
		if !profiled(f.metric) || supported[uint(f.field)] {
			s.ids = append(s.ids, f.field)
		}
	}
	if err = s.begin(r.opts.Interval); err == nil || len(supported) == 0 {
		return s, err
	}
	// Profiling takes a capability, and one tool at a time.
	r.opts.Log.Warn("DCGM: no profiling metrics; do you have CAP_SYS_ADMIN, and does no other tool profile?", "error", err)
	s.ids = slices.DeleteFunc(s.ids, func(id dcgm.Short) bool { return profiled(metricOf[id]) })
	return s, s.begin(r.opts.Interval)
}

// begin has the fields watched. It leaves nothing behind if it fails.
func (s *session) begin(interval time.Duration) (err error) {
	if s.group, err = dcgm.CreateGroup("spotbench"); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = dcgm.DestroyGroup(s.group)
		}
	}()
	for _, e := range s.entities {
		if err = dcgm.AddEntityToGroup(s.group, e.EntityGroupId, e.EntityId); err != nil {
			return err
		}
	}
	if s.fields, err = dcgm.FieldGroupCreate("spotbench", s.ids); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = dcgm.FieldGroupDestroy(s.fields)
		}
	}()
	// Events have a past between two reads; of everything else the newest will do.
	if s.events, err = dcgm.FieldGroupCreate("spotbench-events", []dcgm.Short{dcgm.DCGM_FI_DEV_XID_ERROR}); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = dcgm.FieldGroupDestroy(s.events)
		}
	}()
	if err = dcgm.WatchFieldsWithGroupEx(s.events, s.group, interval.Microseconds(), 300, 0); err != nil {
		return err
	}
	return dcgm.WatchFieldsWithGroupEx(s.fields, s.group, interval.Microseconds(), 0, 1)
}

func (s *session) end() {
	if len(s.entities) == 0 {
		return
	}
	_ = dcgm.DestroyGroup(s.group)
	_ = dcgm.FieldGroupDestroy(s.fields)
	_ = dcgm.FieldGroupDestroy(s.events)
}

// supported are the profiling fields that all GPUs give. A GPU that is not to be
// asked now does not count.
func (r *Reader) supported(entities []entity) map[uint]bool {
	if !r.lib.has(metricGroups) {
		return nil
	}
	var all map[uint]bool
	for _, e := range entities {
		if e.EntityGroupId != dcgm.FE_GPU || dcgm.GetGPUStatus(e.EntityId) != dcgm.EntityStatusOk {
			continue
		}
		groups, err := dcgm.GetSupportedMetricGroups(e.EntityId)
		if err != nil {
			return nil
		}
		mine := map[uint]bool{}
		for _, g := range groups {
			for _, id := range g.FieldIds {
				if all == nil || all[id] {
					mine[id] = true
				}
			}
		}
		all = mine
	}
	return all
}

// identity are the fields that say what a GPU is.
var identity = []dcgm.Short{dcgm.DCGM_FI_DEV_GPU_UUID, dcgm.DCGM_FI_DEV_GPU_NAME, dcgm.DCGM_FI_DEV_PCI_BUS_ID,
	dcgm.DCGM_FI_SYSTEM_DRIVER_VERSION, dcgm.DCGM_FI_DEV_NVML_INDEX, dcgm.DCGM_FI_DEV_GPU_MINOR_NUMBER}

// list asks for the node's GPUs and their MIG instances.
func (r *Reader) list() ([]entity, error) {
	ids, err := dcgm.GetEntityGroupEntities(dcgm.FE_GPU)
	if err != nil {
		return nil, err
	}
	var entities []entity
	for _, id := range ids {
		e := entity{dcgm.GroupEntityPair{EntityGroupId: dcgm.FE_GPU, EntityId: id}, telemetry.Device{Index: int(id), Minor: int(id)}}
		values, err := dcgm.EntitiesGetLatestValues([]dcgm.GroupEntityPair{e.GroupEntityPair}, identity, dcgm.DCGM_FV_FLAG_LIVE_DATA)
		if failedWith(err, dcgm.DCGM_ST_GPU_IS_LOST, dcgm.DCGM_ST_RESET_REQUIRED) {
			entities = append(entities, e) // known by its number only
			continue
		}
		if err != nil {
			return nil, err
		}
		e.device.UUID, e.device.Model, e.device.PCIBusID, e.device.Driver = text(&values[0]), text(&values[1]), text(&values[2]), text(&values[3])
		if n, ok := number(&values[4]); ok {
			e.device.Index = int(n)
			e.device.Minor = int(n)
		}
		if n, ok := number(&values[5]); ok {
			e.device.Minor = int(n)
		}
		entities = append(entities, e)
	}
	return append(entities, r.instances(entities)...), nil
}

// instances are the MIG instances of the GPUs, as far as their UUIDs are known.
func (r *Reader) instances(gpus []entity) []entity {
	hierarchy, err := dcgm.GetGPUInstanceHierarchy()
	if err != nil || hierarchy.Count == 0 || r.opts.Instances == nil {
		return nil
	}
	known := r.opts.Instances()
	var found []entity
	for _, h := range hierarchy.EntityList[:hierarchy.Count] {
		if h.Entity.EntityGroupId != dcgm.FE_GPU_I {
			continue
		}
		parent := slices.IndexFunc(gpus, func(e entity) bool { return e.EntityId == h.Parent.EntityId })
		if parent < 0 {
			continue
		}
		at := slices.IndexFunc(known, func(d telemetry.Device) bool {
			return d.MIG.Parent == gpus[parent].device.UUID && d.MIG.GPUInstance == int(h.Info.NvmlInstanceId)
		})
		if at < 0 {
			continue
		}
		device := gpus[parent].device
		device.UUID, device.MIG = known[at].UUID, known[at].MIG
		found = append(found, entity{h.Entity, device})
	}
	return found
}

// Read reads everything. A GPU that is lost is said to be; the others are good.
func (r *Reader) Read() (telemetry.Reading, error) {
	if err := r.ensure(); err != nil {
		return telemetry.Reading{}, fmt.Errorf("DCGM: %w", err)
	}
	reading, err := r.session.read()
	if err == nil && r.lib.has(linkStatus) {
		r.session.readLinks(&reading)
	}
	if failedWith(err, dcgm.DCGM_ST_CONNECTION_NOT_VALID, dcgm.DCGM_ST_UNINITIALIZED) {
		_ = dcgm.Shutdown()
		r.session, r.failed, r.next = nil, err, time.Now().Add(retryEvery)
	}
	if err != nil {
		return reading, fmt.Errorf("DCGM: %w", err)
	}
	return reading, nil
}

// ensure has a session that knows the entities of the moment: it connects again to an
// engine that went away, and starts over when GPUs or instances came or went.
func (r *Reader) ensure() error {
	now := time.Now()
	if r.session == nil {
		if now.Before(r.next) {
			return r.failed
		}
		if err := r.connect(); err != nil {
			r.failed, r.next = err, now.Add(retryEvery)
			return err
		}
	}
	if now.Sub(r.session.checked) < compareEvery {
		return nil
	}
	r.session.checked = now
	entities, err := r.list()
	if err != nil || slices.EqualFunc(entities, r.session.entities, func(x, y entity) bool {
		return x.GroupEntityPair == y.GroupEntityPair && (x.device.UUID == y.device.UUID || x.device.UUID == "")
	}) {
		return nil //nolint:nilerr // an engine that cannot be asked shows in the read that follows
	}
	since := r.session.since
	r.session.end()
	s, err := r.watch()
	if err != nil {
		_ = dcgm.Shutdown()
		r.session, r.failed, r.next = nil, err, now.Add(retryEvery)
		return err
	}
	s.since = since
	r.session = s
	return nil
}

// read asks for the newest values of all fields, a few entities at a time.
func (s *session) read() (telemetry.Reading, error) {
	var reading telemetry.Reading
	if len(s.entities) == 0 {
		return reading, nil
	}
	at := time.Now()
	for part := range slices.Chunk(s.entities, max(1, most/len(s.ids))) {
		err := s.take(&reading, part, at)
		if failedWith(err, dcgm.DCGM_ST_GPU_IS_LOST, dcgm.DCGM_ST_RESET_REQUIRED) {
			err = s.takeEach(&reading, part, at) // one lost GPU must not hide the others
		}
		if err != nil {
			return telemetry.Reading{}, err
		}
	}
	values, next, err := dcgm.GetValuesSince(s.group, s.events, s.since)
	if err != nil {
		return reading, err
	}
	s.since = next
	for i := range values {
		xid, ok := number(&values[i])
		gpu := slices.IndexFunc(s.entities, func(e entity) bool {
			return e.EntityGroupId == dcgm.FE_GPU && values[i].EntityGroupId == dcgm.FE_GPU && e.EntityId == values[i].EntityID
		})
		if ok && xid > 0 && gpu >= 0 {
			reading.XIDs = append(reading.XIDs, telemetry.XID{GPU: s.entities[gpu].device.UUID, Code: int(xid), At: time.UnixMicro(values[i].TS)})
		}
	}
	var lost []error
	for _, l := range reading.Lost {
		lost = append(lost, fmt.Errorf("GPU %d: %s", l.Index, l.Cause))
	}
	return reading, errors.Join(lost...)
}

// failedWith says whether a call failed with one of the codes.
func failedWith(err error, codes ...int) bool {
	var failure *dcgm.Error
	return errors.As(err, &failure) && slices.Contains(codes, int(failure.Code))
}

// take reads some entities by one call.
func (s *session) take(reading *telemetry.Reading, part []entity, at time.Time) error {
	pairs := make([]dcgm.GroupEntityPair, len(part))
	for i, e := range part {
		pairs[i] = e.GroupEntityPair
	}
	values, err := dcgm.EntitiesGetLatestValues(pairs, s.ids, 0)
	if err != nil {
		return err
	}
	for i, e := range part {
		add(reading, e, at, values[i*len(s.ids):(i+1)*len(s.ids)])
	}
	return nil
}

// takeEach reads some entities by a call each.
func (s *session) takeEach(reading *telemetry.Reading, part []entity, at time.Time) error {
	for _, e := range part {
		err := s.take(reading, []entity{e}, at)
		if failedWith(err, dcgm.DCGM_ST_GPU_IS_LOST, dcgm.DCGM_ST_RESET_REQUIRED) {
			lose(reading, e, err.Error())
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// add turns an entity's values into a sample, or into a lost GPU.
func add(reading *telemetry.Reading, e entity, at time.Time, values []dcgm.FieldValue_v2) {
	s := telemetry.Sample{Device: e.device, At: at}
	gone := false
	for i := range values {
		v := &values[i]
		gone = gone || v.Status == dcgm.DCGM_ST_GPU_IS_LOST
		if n, ok := number(v); ok {
			s.Set(metricOf[v.FieldID], n)
		}
	}
	if gone || s.Empty() && e.EntityGroupId == dcgm.FE_GPU && dcgm.GetGPUStatus(e.EntityId) == dcgm.EntityStatusLost {
		lose(reading, e, "the driver has lost it")
		return
	}
	reading.Samples = append(reading.Samples, s)
}

// lose notes that a GPU is lost. Its instances are not told of.
func lose(reading *telemetry.Reading, e entity, cause string) {
	if e.EntityGroupId == dcgm.FE_GPU {
		reading.Lost = append(reading.Lost, telemetry.Lost{UUID: e.device.UUID, Index: e.device.Index, Cause: cause})
	}
}

// readLinks counts the NVLinks of each GPU.
func (s *session) readLinks(reading *telemetry.Reading) {
	links, err := dcgm.GetNvLinkLinkStatus()
	if err != nil {
		return
	}
	up, down := map[uint]float64{}, map[uint]float64{}
	for _, l := range links {
		switch {
		case l.ParentType != dcgm.FE_GPU:
		case l.State == dcgm.LS_UP:
			up[l.ParentId]++
		case l.State == dcgm.LS_DOWN:
			down[l.ParentId]++
		}
	}
	for _, e := range s.entities {
		for i := range reading.Samples {
			sample := &reading.Samples[i]
			if e.EntityGroupId == dcgm.FE_GPU && sample.UUID == e.device.UUID && up[e.EntityId]+down[e.EntityId] > 0 {
				sample.Set(telemetry.NVLinksUp, up[e.EntityId])
				sample.Set(telemetry.NVLinksDown, down[e.EntityId])
			}
		}
	}
}
