// SPDX-License-Identifier: Apache-2.0

package packing

import "math"

// kind of GPU: what a request can tell nodes apart by.
type kind struct {
	model  string
	memory int64
}

// shape of nodes: of one kind of GPU, and about as large.
type shape struct {
	kind, gpus int
	// cores and memory of the largest of them, capacity in GPUs of all.
	cores    float64
	memory   int64
	capacity int
}

type shapeKey struct{ kind, gpus, cores, memory int }

// about is a size in steps of a twelfth: nodes of one machine type differ by what is
// reserved on them.
func about(size int64) int { return int(math.Round(6 * math.Log2(float64(max(size, 1))))) }

// holds says whether a pod of the class could run on such a node when it is idle.
func (s *shape) holds(c *class) bool {
	return c.allowed[s.kind] && c.gpus <= s.gpus && c.cores <= math.Ceil(s.cores) && c.memory <= float64(s.memory)
}

// corePrices are the prices of a core that are tried to find a node's own, in GPUs
// where the cluster has typicalCores for each of its GPUs.
var corePrices = [...]float64{0, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.055, 0.07, 0.09, 0.12, 0.16, 0.22, 0.3, 0.4}

const typicalCores = 17

// prices are a solution of the linear program: enough to tell the potential of any
// state of any node.
type prices struct {
	epoch int
	// coreUnit scales corePrices to the cluster at hand. floor is the index of the
	// lowest one that counts: what pods without GPUs pay for a core.
	coreUnit float64
	floor    int
	tables   [][len(corePrices)]table // by kind
	like     []int                    // by kind: whose tables are its own
	pressure []float64                // by shape: demand that only it can meet, over what is free
}

// table is what free GPUs of a kind are worth where a core has a certain price. It is
// soft: packings nearly as good as the best count too, so that the worth is an
// expectation over what may come and has no jumps.
type table struct {
	// share[r] is the worth of one GPU with r slots left, idle[n] of n idle GPUs.
	share [slots + 1]float64
	idle  [MostGPUs + 1]float64

	// weight of each class, of all of a size among those on one GPU, and the worth of
	// all with so many GPUs; patterns[r] is the sum over all packings into r slots.
	weight   []float64
	bySize   [slots + 1]float64
	multi    [MostGPUs + 1]float64
	patterns [slots + 1]float64
}

// unlikely is how many times the softness a class may be short of its worth and still
// matter.
const unlikely = 3

// exponentials are the weights of classes, which kinds have in common.
type exponentials struct {
	ofValue []float64 // exp(value / softness), for classes on one GPU
	net     []float64 // value less the price of its cores
	weight  []float64 // exp(net / softness), for classes on one GPU
}

func (x *exponentials) values(classes []*class, softness float64) {
	n := len(classes)
	x.ofValue, x.net, x.weight = make([]float64, n), make([]float64, n), make([]float64, n)
	for i, c := range classes {
		if c.gpus == 1 {
			x.ofValue[i] = math.Exp(c.value() / softness)
		}
	}
}

func (x *exponentials) cores(classes []*class, corePrice, softness float64) {
	byCores := map[float64]float64{}
	for i, c := range classes {
		x.net[i] = c.value() - corePrice*c.cores
		if c.gpus > 1 {
			continue
		}
		factor, known := byCores[c.cores]
		if !known {
			factor = math.Exp(-corePrice * c.cores / softness)
			byCores[c.cores] = factor
		}
		x.weight[i] = x.ofValue[i] * factor
	}
}

// fill computes the table.
func (t *table) fill(classes []*class, kind int, x *exponentials, softness float64, gpus int) {
	if cap(t.weight) < len(classes) {
		t.weight = make([]float64, len(classes), 2*len(classes))
	}
	t.weight = t.weight[:len(classes)]
	clear(t.bySize[:])
	for n := range t.multi {
		t.multi[n] = math.Inf(-1)
	}
	for i, c := range classes {
		t.weight[i] = 0
		if !c.allowed[kind] || x.net[i] < -unlikely*softness {
			continue
		}
		if c.gpus > 1 {
			t.weight[i] = x.net[i]
			t.multi[c.gpus] = softMax(t.multi[c.gpus], x.net[i], softness)
			continue
		}
		t.weight[i] = x.weight[i]
		t.bySize[c.slots] += t.weight[i]
	}
	var sizes []int
	for size, weight := range t.bySize {
		if weight > 0 {
			sizes = append(sizes, size)
		}
	}
	for r := range t.patterns {
		sum := 1.0 // leave it
		for _, size := range sizes {
			if size > r {
				break
			}
			sum += t.bySize[size] * t.patterns[r-size]
		}
		t.patterns[r] = sum
		t.share[r] = softness * math.Log(sum)
	}
	t.idle[0] = 0
	for n := 1; n <= gpus; n++ {
		t.idle[n] = t.idle[n-1] + t.share[slots]
		for g := 2; g <= n; g++ {
			if !math.IsInf(t.multi[g], -1) {
				t.idle[n] = softMax(t.idle[n], t.idle[n-g]+t.multi[g], softness)
			}
		}
	}
}

// softMax is the larger of two, or a little more where they are close.
func softMax(a, b, softness float64) float64 {
	if a < b {
		a, b = b, a
	}
	if math.IsInf(b, -1) {
		return a
	}
	return a + softness*math.Log1p(math.Exp((b-a)/softness))
}

// state of a node that its potential depends on.
type state struct {
	kind  int
	cores float64
	idle  int
	parts [MostGPUs]uint8 // slots left of GPUs in use
	n     int             // how many of parts
}

func (s *state) of(kind int, cores float64, free []int64) {
	s.kind, s.cores, s.idle, s.n = kind, max(cores, 0), 0, 0
	for _, milli := range free {
		switch {
		case milli >= WholeGPU:
			s.idle++
		case milli >= slotMilli:
			s.parts[s.n] = uint8(milli / slotMilli)
			s.n++
		}
	}
}

// potential of a node, in GPUs, and the index of its core price. The node's cores are
// shared by its GPUs; their price is the one at which GPUs and cores together are
// worth least, the dual of not using more cores than there are.
func (p *prices) potential(s *state) (worth float64, corePrice int) {
	worth = math.Inf(1)
	tables := &p.tables[s.kind]
	for k := p.floor; k < len(corePrices); k++ {
		t := &tables[k]
		w := corePrices[k]*p.coreUnit*s.cores + t.idle[s.idle]
		for _, r := range s.parts[:s.n] {
			w += t.share[r]
		}
		if w < worth {
			worth, corePrice = w, k
		}
	}
	return worth, corePrice
}
