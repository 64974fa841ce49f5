// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"net/url"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/interruption"
)

// instance is this machine as the catalog knows it: how long machines of its pool
// live is what the risk of an interruption is learned from.
type instance struct {
	mu    sync.Mutex
	known catalog.Instance // UID is "" until the node has been read
}

// reportInstance tells the catalog that the machine is there, now and again,
// until ctx ends. What it is needs to be read only once.
func (a *Agent) reportInstance(ctx context.Context) {
	err := retry(ctx, time.Second, func() error {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		node, err := a.client.Nodes().Get(ctx, a.cfg.Node, metav1.GetOptions{})
		if err != nil {
			return err
		}
		pool := gpu.NodePool(node.Labels, node.Spec.ProviderID)
		a.instance.mu.Lock()
		defer a.instance.mu.Unlock()
		a.instance.known = catalog.Instance{UID: string(node.UID), Node: node.Name, Provider: pool.Provider, Region: pool.Region, Zone: pool.Zone,
			InstanceType: pool.InstanceType, CapacityType: pool.CapacityType, StartedAt: node.CreationTimestamp.UTC()}
		return nil
	})
	if err != nil {
		return // ctx ended
	}
	ticks := time.NewTicker(a.cfg.InstanceInterval)
	defer ticks.Stop()
	for {
		a.tellInstance(func(i *catalog.Instance) { i.SeenAt = time.Now().UTC() })
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
	}
}

// noticed tells the catalog of a notice; a machine that was never read is not told of.
func (a *Agent) noticed(n interruption.Notice) {
	a.tellInstance(func(i *catalog.Instance) {
		i.SeenAt = n.SeenAt.UTC()
		switch n.Kind {
		case interruption.KindRebalance:
			i.RebalanceAt = n.SeenAt.UTC()
		case interruption.KindSpot:
			i.NoticeAt = n.SeenAt.UTC()
		default: // planned work is no reclaim, and says nothing about the risk of one
		}
	})
}

func (a *Agent) tellInstance(change func(*catalog.Instance)) {
	a.instance.mu.Lock()
	told := a.instance.known
	a.instance.mu.Unlock()
	if told.UID == "" {
		return
	}
	uid := told.UID
	told.UID = "" // it is the path
	change(&told)
	if told.SeenAt.Before(told.StartedAt) {
		told.SeenAt = told.StartedAt // this node's clock is behind the API server's
	}
	if !told.NoticeAt.IsZero() && told.NoticeAt.Before(told.StartedAt) {
		told.NoticeAt = told.StartedAt
	}
	a.records.put("/v1/instances/"+url.PathEscape(uid), told)
}
