// SPDX-License-Identifier: Apache-2.0

package packing

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Shares of a GPU are counted in slots of ten thousandths: requests rounded up, what
// is free rounded down.
const (
	slots     = 100
	slotMilli = WholeGPU / slots
)

// class is a kind of pod in the demand: requests alike in what prices depend on.
type class struct {
	models    []string // sorted; none means any
	gpuMemory int64
	gpus      int
	slots     int     // of each GPU
	cores     float64 // rounded up
	memory    float64 // bytes, the mean of its pods
	worth     float64 // GPUs
	count     float64 // observed, newer ones more
	pending   float64

	// Of the linear program: the expected demand, how much of it the present prices
	// would place, what one more of it falls short of its worth, and by kind of GPU
	// whether it may run there.
	demand, placed, discount float64
	allowed                  []bool
	// priced says that it had a part in the present prices.
	priced bool
}

// value of serving one more pod of the class, in GPUs.
func (c *class) value() float64 { return c.worth - c.discount }

func (c *class) allows(k kind) bool {
	return (len(c.models) == 0 || slices.Contains(c.models, k.model)) && k.memory >= c.gpuMemory
}

// demand is what has been asked for of late.
type demand struct {
	classes []*class
	byKey   map[string]*class
	cores   float64 // asked for by pods without GPUs
	// weight of the next pod: instead of letting all counts fade, later ones weigh more.
	weight float64
	seen   int
}

func newDemand() *demand { return &demand{byKey: map[string]*class{}, weight: 1} }

// heaviest is when counts are scaled back, well before they lose precision.
const heaviest = 1e6

// forgotten is the count below which a class is dropped.
const forgotten = 1e-4

func (d *demand) observe(r Request, halfLife float64) {
	d.seen++
	d.weight *= math.Exp2(1 / halfLife)
	if d.weight > heaviest {
		d.rescale()
	}
	if r.GPUs == 0 {
		d.cores += d.weight * r.cores()
		return
	}
	c := d.class(r)
	c.count += d.weight
	c.memory += (float64(r.MemoryBytes) - c.memory) * d.weight / c.count
}

func (d *demand) class(r Request) *class {
	models := slices.Compact(slices.Sorted(slices.Values(r.Models)))
	size := int((r.GPUMilli + slotMilli - 1) / slotMilli)
	cores := math.Ceil(r.cores())
	fresh := class{models: models, gpuMemory: r.GPUMemoryBytes, gpus: r.GPUs, slots: size, cores: cores}
	key := fresh.key()
	c := d.byKey[key]
	if c == nil {
		c = &fresh
		c.memory, c.worth = float64(r.MemoryBytes), worthOf(r.GPUs, size)
		c.discount = 0.3 * c.worth
		d.byKey[key] = c
		d.classes = append(d.classes, c)
	}
	return c
}

// key is the same of requests that are of one class.
func (c *class) key() string {
	return fmt.Sprintf("%d %d %v %d %s", c.gpus, c.slots, c.cores, c.gpuMemory, strings.Join(c.models, "|"))
}

// worthOf so many hundredths of each of some GPUs, in GPUs.
func worthOf(gpus, hundredths int) float64 { return float64(gpus) * float64(hundredths) / slots }

func (d *demand) rescale() {
	for _, c := range d.classes {
		c.count /= d.weight
	}
	d.cores /= d.weight
	d.weight = 1
	for key, c := range d.byKey {
		if c.count < forgotten && c.pending == 0 {
			delete(d.byKey, key)
		}
	}
	d.classes = slices.DeleteFunc(d.classes, func(c *class) bool { return c.count < forgotten && c.pending == 0 })
}

// worth of one pod of each class observed, and the cores, in units of the newest pod.
func (d *demand) total() (gpus float64) {
	for _, c := range d.classes {
		gpus += c.worth * c.count
	}
	return gpus / d.weight
}
