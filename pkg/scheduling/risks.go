// SPDX-License-Identifier: Apache-2.0

package scheduling

import (
	"context"
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/klog/v2"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/client"
	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/placement"
	"github.com/spotbench/spotbench/pkg/risk"
	"github.com/spotbench/spotbench/pkg/riskfeed"
)

// catalogTimeout bounds one question to the catalog.
const catalogTimeout = 30 * time.Second

// openFeed makes the feed of the risks that the catalog at a URL has learned. Only
// the URL is checked now: a scheduler starts whether there is a catalog or not.
func openFeed(url, caFile string, priors risk.Book) (*riskfeed.Feed, error) {
	if _, err := client.New(url, nil, nil); err != nil {
		return nil, fmt.Errorf("pluginConfig %s: args.catalogURL: %w", Name, err)
	}
	return riskfeed.New(&catalogSource{url: url, caFile: caFile}, priors), nil
}

// catalogSource asks a catalog. The authority of its certificate is read with the
// first question that finds its file: it may come later than the scheduler.
type catalogSource struct {
	url, caFile string
	client      *client.Client
}

// ListRisks asks for all risks.
func (s *catalogSource) ListRisks(ctx context.Context) ([]catalog.PoolRisk, error) {
	if s.client == nil {
		trusting, err := client.Trusting(s.caFile, catalogTimeout)
		if err != nil {
			return nil, fmt.Errorf("pluginConfig %s: args.catalogCAFile: %w", Name, err)
		}
		c, err := client.New(s.url, trusting, nil)
		if err != nil {
			return nil, err
		}
		s.client = c
	}
	return s.client.ListRisks(ctx)
}

// followRisks keeps the feed fresh until ctx ends, and tries pods again that a risk
// kept pending when it no longer does: no event of the cluster tells of that.
func (p *Plugin) followRisks(ctx context.Context, interval time.Duration) {
	told := map[gpu.Pool]risk.ByAge{}
	p.feed.Run(ctx, interval, func(changed []gpu.Pool) {
		risksRefreshed.Set(float64(p.feed.AsOf().Unix()))
		if len(changed) == 0 {
			return
		}
		changes := p.riskChanges(changed, told)
		for _, pool := range changed {
			if ages, learned := p.feed.Ages(pool); learned {
				told[pool] = ages
			} else {
				delete(told, pool)
			}
		}
		pods, err := p.handle.SharedInformerFactory().Core().V1().Pods().Lister().List(labels.Everything())
		if err != nil {
			return // the cache never fails
		}
		again := map[string]*v1.Pod{}
		for _, pod := range pods {
			if pod.Spec.NodeName == "" && dependsOnRisk(pod) && p.wokenByRisks(pod, changes) {
				again[pod.Namespace+"/"+pod.Name] = pod
			}
		}
		if len(again) > 0 {
			p.handle.Activate(klog.FromContext(ctx), again)
		}
	})
}

// riskChange is a kind of node before and after its pool's hazard changed.
type riskChange struct{ before, after placement.Node }

// riskChanges are the kinds of nodes of the pools whose hazards were told before.
func (p *Plugin) riskChanges(changed []gpu.Pool, told map[gpu.Pool]risk.ByAge) []riskChange {
	nodes, err := p.handle.SharedInformerFactory().Core().V1().Nodes().Lister().List(labels.Everything())
	if err != nil {
		return nil // the cache never fails
	}
	before := func(pool gpu.Pool) (risk.ByAge, bool) { ages, known := told[pool]; return ages, known }
	var changes []riskChange
	for _, node := range nodes {
		after := p.node(node)
		if !slices.Contains(changed, after.Pool) {
			continue
		}
		c := riskChange{after, after}
		p.setRiskBy(&c.before, node, before)
		c.before.Name, c.after.Name = "", ""
		if !slices.ContainsFunc(changes, func(other riskChange) bool { return other.before.Equal(c.before) && other.after.Equal(c.after) }) {
			changes = append(changes, c)
		}
	}
	return changes
}

// wokenByRisks says whether a kind of node suits a pod now and did not before. One that
// waits for spot also minds the end of what it waits for.
func (p *Plugin) wokenByRisks(pod *v1.Pod, changes []riskChange) bool {
	if _, whole := wholeGPUs(pod); !whole {
		return true // nodes that are of one kind to others may not be to it
	}
	request, err := p.request(pod)
	if err != nil {
		return false
	}
	for i := range changes {
		suited := p.suitable(request, nil, &changes[i].before, nil)
		suits := p.suitable(request, nil, &changes[i].after, nil)
		if suits && !suited || suited && !suits && placement.WaitsForSpot(request) {
			return true
		}
	}
	return false
}

// dependsOnRisk says whether a pod may be refused for an interruption risk.
func dependsOnRisk(pod *v1.Pod) bool {
	_, limit := pod.Annotations[benchspec.AnnotationMaxInterruptionRisk]
	_, deadline := pod.Annotations[benchspec.AnnotationDeadline]
	return limit || deadline
}

// setRisk gives a node the hazard of its pool: what the catalog learned of it by
// the machine's age, else what is assumed. A machine that the cloud recommends to
// leave has at least risk.AfterRebalance, whatever its pool's.
func (p *Plugin) setRisk(n *placement.Node, node *v1.Node) {
	p.setRiskBy(n, node, func(pool gpu.Pool) (ages risk.ByAge, learned bool) {
		if p.feed == nil {
			return ages, false
		}
		return p.feed.Ages(pool)
	})
}

// setRiskBy is setRisk with what was learned at some time.
func (p *Plugin) setRiskBy(n *placement.Node, node *v1.Node, learned func(gpu.Pool) (risk.ByAge, bool)) {
	n.Ages, n.Age = nil, 0
	n.Hazard = p.hazards.Lookup(n.Pool).Hazard
	rebalance := conditionTrue(node, benchspec.ConditionRebalance)
	if rebalance {
		n.Hazard = max(n.Hazard, risk.AfterRebalance)
	}
	if n.Pool.CapacityType != gpu.Spot {
		return
	}
	ages, ok := learned(n.Pool)
	if !ok {
		return
	}
	if rebalance {
		for i := range ages {
			ages[i] = max(ages[i], float64(risk.AfterRebalance))
		}
	}
	n.Ages, n.Age = &ages, inSteps(p.now().Sub(node.CreationTimestamp.Time))
}

// inSteps is an age to within a sixteenth, or five minutes: hazards change little
// over that, and nodes of about the same age are reckoned with as one.
func inSteps(age time.Duration) time.Duration {
	step := 5 * time.Minute
	for step < age/16 {
		step *= 2
	}
	return max(0, age.Truncate(step))
}

func conditionTrue(node *v1.Node, kind v1.NodeConditionType) bool {
	for _, c := range node.Status.Conditions {
		if c.Type == kind {
			return c.Status == v1.ConditionTrue
		}
	}
	return false
}
