// SPDX-License-Identifier: Apache-2.0

package scheduling

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	resourcehelper "k8s.io/component-helpers/resource"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/placement"
	"github.com/spotbench/spotbench/pkg/placement/claims"
	"github.com/spotbench/spotbench/pkg/pricing"
	"github.com/spotbench/spotbench/pkg/risk"
	"github.com/spotbench/spotbench/pkg/riskfeed"
)

// Name is the plugin's name in KubeSchedulerConfiguration.
const Name = "SpotbenchPlacement"

// Plugin places benchmark pods. What it reckons with between scheduling attempts is
// made again from the snapshot of the next one, from the catalog's last answer and
// from the pods that there are, so nothing that matters is lost with the process.
type Plugin struct {
	handle  framework.Handle
	prices  pricing.Book
	hazards risk.Book
	models  nodeModels
	waiting waitingPods
	fleet   *fleet
	// devices are GPUs of dynamic resource allocation; nil without it.
	devices *devices
	// feed has what the catalog learned; nil without a catalog.
	feed        *riskfeed.Feed
	assumptions placement.Assumptions
	now         func() time.Time
	logger      klog.Logger

	bindings *gate

	// lastChange is the event that hints were last asked about.
	lastChange atomic.Pointer[nodeChange]

	mu sync.Mutex
	// alarms are of pods that wait for spot until they must start on demand. They
	// are not state of decisions: a pod without one is tried again a little later.
	alarms map[types.UID]alarm
}

var (
	_ framework.PreFilterPlugin   = &Plugin{}
	_ framework.FilterPlugin      = &Plugin{}
	_ framework.PostFilterPlugin  = &Plugin{}
	_ framework.EnqueueExtensions = &Plugin{}
	_ framework.PreScorePlugin    = &Plugin{}
	_ framework.ScorePlugin       = &Plugin{}
	_ framework.ReservePlugin     = &Plugin{}
	_ framework.BindPlugin        = &Plugin{}
)

// New is the factory that the scheduler calls for each profile with the plugin.
func New(ctx context.Context, obj runtime.Object, handle framework.Handle) (framework.Plugin, error) {
	args, err := DecodeArgs(obj)
	if err != nil {
		return nil, err
	}
	prices, hazards, err := args.Load()
	if err != nil {
		return nil, err
	}
	logger := klog.FromContext(ctx)
	if prices.Len() == 0 {
		logger.Info("No price book: nodes are ranked by expected time, and placements have no cost", "plugin", Name, "field", "args.pricesFile")
	}
	models, err := openNodeModels(handle.SharedInformerFactory())
	if err != nil {
		return nil, err
	}
	waiting, err := openWaitingPods(handle.SharedInformerFactory())
	if err != nil {
		return nil, err
	}
	devices, err := openDevices(handle.SharedInformerFactory(), handle.SharedDRAManager())
	if err != nil {
		return nil, err
	}
	nodes, err := newFleet()
	if err != nil {
		return nil, err
	}
	if err := nodes.forgetDeleted(handle.SharedInformerFactory()); err != nil {
		return nil, err
	}
	registerMetrics()
	go watchPrices(ctx, prices, args.priceMaxAge())
	gpuGauges.follow(handle.SharedInformerFactory(), nodes, devices)
	p := &Plugin{handle: handle, models: models, waiting: waiting, fleet: nodes, devices: devices, prices: prices, hazards: hazards, assumptions: args.Assumptions(), now: time.Now, logger: logger, bindings: newGate(mostBindings), alarms: map[types.UID]alarm{}}
	p.stopAlarms(ctx)
	if args.CatalogURL == "" {
		logger.Info("No catalog: every pool has its assumed hazard", "plugin", Name, "field", "args.catalogURL")
		return p, nil
	}
	if p.feed, err = openFeed(args.CatalogURL, args.CatalogCAFile, hazards); err != nil {
		return nil, err
	}
	go p.followRisks(ctx, args.riskRefresh())
	return p, nil
}

// Name is the plugin's name.
func (*Plugin) Name() string { return Name }

// stateKey is where an attempt keeps its request.
const stateKey fwk.StateKey = Name

// attempt is what one scheduling attempt knows of its pod. It is written before
// Filter runs and only read by it, so copies of the cycle state may share it.
type attempt struct {
	request placement.Request
	// claimed is what the pod's claims come to, nil for one without; seen are the nodes
	// as it finds them (placement.Node by name), which Filter may ask for at once.
	claimed *claimed
	seen    sync.Map
	// list has the best nodes, found in PreFilter where that could tell; shortlisted
	// says that only they are looked at.
	list        placement.Shortlist
	shortlisted bool
	// spotSuits says that spot nodes suit the pod, free or not: one with a deadline
	// then waits for them as long as it can.
	spotSuits bool
	// narrowed says that PreFilter left out the nodes that have none of the models.
	narrowed bool
	// ranked is set by PreScore, which runs when more than one node is feasible.
	ranked []placement.Candidate
	// decided is set by Reserve.
	decided *benchspec.Placement
}

// Clone shares the attempt: Filter, the only reader of copies, does not change it.
func (a *attempt) Clone() fwk.StateData { return a }

var errNoAttempt = errors.New(Name + " was not given the pod in PreFilter; enable it at every extension point (multiPoint)")

func attemptOf(state fwk.CycleState) (*attempt, error) {
	data, err := state.Read(stateKey)
	if err != nil {
		return nil, errNoAttempt
	}
	a, ok := data.(*attempt)
	if !ok {
		return nil, errNoAttempt
	}
	return a, nil
}

// request reads what a pod asks for, now. An error (*unreadable) is why it is refused
// whatever the nodes.
func (p *Plugin) request(pod *v1.Pod) (placement.Request, error) {
	r, err := asks(pod)
	r.Now, r.Assumptions = p.now(), p.assumptions
	return r, err
}

// asks reads what a pod asks for.
func asks(pod *v1.Pod) (placement.Request, error) {
	spec, err := benchspec.Parse(pod.Annotations)
	requests := requestsOf(pod)
	r := placement.Request{Spec: spec, CPUMilli: requests.Cpu().MilliValue(), MemoryBytes: requests.Memory().Value()}
	if err != nil {
		return r, &unreadable{"MalformedAnnotation", ErrReasonMalformed + strings.ReplaceAll(err.Error(), "\n", "; ")}
	}
	if r.Resource, r.GPUs, err = gpusAsked(requests); err != nil {
		return r, &unreadable{"SeveralKindsOfGPUs", err.Error()}
	}
	return r, nil
}

// wanted reads what a pod asks for, its claims included.
func (p *Plugin) wanted(pod *v1.Pod) (placement.Request, *claimed, error) {
	r, err := p.request(pod)
	if err != nil {
		return r, nil, err
	}
	c, err := p.devices.claimed(pod)
	switch {
	case err != nil:
		return r, nil, &unreadable{"ResourceClaims", err.Error()}
	case c == nil:
		return r, nil, nil
	case r.GPUs > 0:
		return r, nil, &unreadable{"SeveralKindsOfGPUs", "the pod asks for GPUs by " + r.Resource.Name() + " and by resource claims; leave one of them"}
	}
	r.Resource, r.GPUs = gpu.Resource{Claimed: true}, claims.Count(c.asks)
	return r, c, nil
}

// unreadable is why a pod is refused whatever the nodes.
type unreadable struct {
	reason string // for metrics
	text   string // for the pod's event
}

func (u *unreadable) Error() string { return u.text }

func requestsOf(pod *v1.Pod) v1.ResourceList {
	return resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
}

// node is what the plugin knows of a node without the pods on it, as one that asks
// for whole GPUs finds it.
func (p *Plugin) node(node *v1.Node) placement.Node {
	n := placement.Node{
		Name:   node.Name,
		Pool:   gpu.NodePool(node.Labels, node.Spec.ProviderID),
		Notice: notice(node),
	}
	n.GPUs, n.HasGPUs = gpusOfNode(node)
	allocatable := node.Status.Allocatable[gpu.ResourceName]
	n.TotalGPUs = int(allocatable.Value())
	n.FreeGPUs = n.TotalGPUs
	if price, ok := p.prices.Lookup(n.Pool); ok {
		n.USDPerHour = price.USDPerHour
	}
	if price, ok := p.prices.OnDemand(n.Pool); ok {
		n.OnDemandUSDPerHour = price.USDPerHour
	}
	p.setRisk(&n, node)
	return n
}

// nodeWithPods is what the plugin knows of a node in a snapshot, as the pod of an
// attempt finds it. What the fleet has of it is taken, unless pods were put there or
// taken away to see what if.
func (p *Plugin) nodeWithPods(a *attempt, info fwk.NodeInfo) placement.Node {
	n, ok := p.fleet.node(info)
	if !ok {
		n = p.withPods(info)
	}
	return p.asWithPods(a, n, info)
}

func (p *Plugin) withPods(info fwk.NodeInfo) placement.Node {
	n := p.node(info.Node())
	requested := info.GetRequested().GetScalarResources()
	if !anyGPUs(requested) && !slices.ContainsFunc(info.GetPods(), func(other fwk.PodInfo) bool { return len(other.GetPod().Spec.ResourceClaims) > 0 }) {
		return n
	}
	n.FreeGPUs = n.TotalGPUs - int(requested[gpu.ResourceName])
	for _, other := range info.GetPods() {
		if !p.usesGPUs(other.GetPod()) {
			continue
		}
		n.GPUPods++
		if isolated(other.GetPod()) {
			n.IsolatedPods++
		}
	}
	return n
}

func isolated(pod *v1.Pod) bool {
	return pod.Annotations[benchspec.AnnotationIsolation] == string(benchspec.IsolationNode)
}

// notice says what interruption a node awaits, "" for none. The agent sets both
// condition and taint; a pod that tolerates the taint is kept off all the same.
func notice(node *v1.Node) string {
	for _, c := range node.Status.Conditions {
		if c.Type == benchspec.ConditionSpotInterruption && c.Status == v1.ConditionTrue {
			if c.Reason == "" {
				return "condition " + benchspec.ConditionSpotInterruption
			}
			return c.Reason
		}
	}
	for _, t := range node.Spec.Taints {
		if t.Key == benchspec.TaintInterruption {
			return "taint " + t.Key + "=" + t.Value
		}
	}
	return ""
}
