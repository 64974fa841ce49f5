// SPDX-License-Identifier: Apache-2.0

package packing

// Fragmentation of each GPU model: of its free GPUs, how many are expected to be of no
// use to one of the pods that were asked for of late and may run on it. A GPU is of no
// use to a pod when too little of it is free, or when its node has too few others, too
// few cores or too little memory beside it (the measure of FGD, USENIX ATC'23). 0 where
// nobody asked for the model.
func (e *Engine) Fragmentation() map[string]float64 {
	if e.stale {
		e.survey()
	}
	asked := make([]float64, len(e.kinds)) // for, by kind
	for k, kind := range e.kinds {
		for _, c := range e.demand.classes {
			if c.allows(kind) {
				asked[k] += c.count
			}
		}
	}
	out := map[string]float64{}
	for _, m := range e.machines {
		if m.GPUs == 0 {
			continue
		}
		k := e.kinds[m.kind]
		out[k.model] += 0 // models without any are there too
		free := m.freeShares()
		if free == 0 || asked[m.kind] == 0 {
			continue
		}
		for _, c := range e.demand.classes {
			if c.allows(k) {
				out[k.model] += c.count / asked[m.kind] * (free - m.usable(c))
			}
		}
	}
	return out
}

// freeShares are the free GPUs, shares of one included.
func (m *machine) freeShares() (gpus float64) {
	for _, milli := range m.freeGPU {
		gpus += float64(max(milli, 0)) / WholeGPU
	}
	return gpus
}

// usable is how many of the free GPUs a pod of a class could be given.
func (m *machine) usable(c *class) (gpus float64) {
	if m.freeCores < c.cores || float64(m.freeMemory) < c.memory {
		return 0
	}
	enough := 0
	for _, milli := range m.freeGPU {
		if milli >= int64(c.slots)*slotMilli {
			enough++
			gpus += float64(milli) / WholeGPU
		}
	}
	if enough < c.gpus {
		return 0
	}
	return gpus
}
