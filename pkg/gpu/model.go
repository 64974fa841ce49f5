// SPDX-License-Identifier: Apache-2.0

package gpu

import (
	"fmt"
	"slices"
	"strings"
)

const (
	mib = int64(1) << 20
	gib = int64(1) << 30
)

// Model is one GPU model: a card (or the accelerator of a superchip) that
// benchmarks of the same name may be compared on.
type Model struct {
	// Name is the canonical name, FAMILY-SIZE, for example "H100-80GB".
	Name string
	// MemoryBytes is the nominal memory: the sold size, N GB counted as N GiB.
	MemoryBytes int64
	// Architecture is NVIDIA's name in lower case, as in the label
	// nvidia.com/gpu.family: "hopper".
	Architecture string
	// Aliases are other spellings, among them the products GPU Feature Discovery
	// reports (without the "NVIDIA-" prefix) and GKE's accelerator names.
	Aliases []string
}

// catalogue is ordered newest architecture first. Sizes: vendor datasheets.
// Product strings: NVML names as GPU Feature Discovery writes them.
var catalogue = []Model{
	{"GB200-186GB", 186 * gib, "blackwell", []string{"GB200", "nvidia-gb200"}},
	{"B200-180GB", 180 * gib, "blackwell", []string{"B200", "B200-192GB", "nvidia-b200"}},
	{"RTX-PRO-6000-96GB", 96 * gib, "blackwell", []string{"RTX-PRO-6000-Blackwell-Server-Edition", "RTX-PRO-6000-Blackwell-Workstation-Edition", "nvidia-rtx-pro-6000"}},
	{"RTX-5090-32GB", 32 * gib, "blackwell", []string{"GeForce-RTX-5090", "RTX-5090"}},
	{"GH200-96GB", 96 * gib, "hopper", []string{"GH200-480GB", "GH200-96GB-HBM3"}},
	{"GH200-144GB", 144 * gib, "hopper", []string{"GH200-144G-HBM3e", "GH200-144GB-HBM3e"}},
	{"H200-141GB", 141 * gib, "hopper", []string{"H200", "H200-SXM5-141GB", "H200-NVL", "nvidia-h200-141gb"}},
	{"H100-80GB", 80 * gib, "hopper", []string{"H100-80GB-HBM3", "H100-80GB-HBM2e", "H100-PCIe", "H100-SXM5-80GB", "H100-SXM", "nvidia-h100-80gb", "nvidia-h100-mega-80gb"}},
	{"H100-NVL-94GB", 94 * gib, "hopper", []string{"H100-NVL", "H100-94GB"}},
	{"H20-96GB", 96 * gib, "hopper", []string{"H20"}},
	{"H800-80GB", 80 * gib, "hopper", []string{"H800", "H800-PCIe"}},
	{"L40S-48GB", 48 * gib, "ada-lovelace", []string{"L40S"}},
	{"L40-48GB", 48 * gib, "ada-lovelace", []string{"L40"}},
	{"L4-24GB", 24 * gib, "ada-lovelace", []string{"L4", "nvidia-l4"}},
	{"RTX-6000-Ada-48GB", 48 * gib, "ada-lovelace", []string{"RTX-6000-Ada-Generation"}},
	{"RTX-4090-24GB", 24 * gib, "ada-lovelace", []string{"GeForce-RTX-4090", "RTX-4090"}},
	{"A100-80GB", 80 * gib, "ampere", []string{"A100-SXM4-80GB", "A100-SXM-80GB", "A100-80GB-PCIe", "A100-PCIE-80GB", "nvidia-a100-80gb"}},
	{"A100-40GB", 40 * gib, "ampere", []string{"A100-SXM4-40GB", "A100-PCIE-40GB", "A100-PCI-40GB", "A100-SXM-40GB", "nvidia-tesla-a100"}},
	{"A800-80GB", 80 * gib, "ampere", []string{"A800-SXM4-80GB", "A800-80GB-PCIe"}},
	{"A40-48GB", 48 * gib, "ampere", []string{"A40"}},
	{"A30-24GB", 24 * gib, "ampere", []string{"A30"}},
	{"A10G-24GB", 24 * gib, "ampere", []string{"A10G"}},
	{"A10-24GB", 24 * gib, "ampere", []string{"A10"}},
	{"A2-16GB", 16 * gib, "ampere", []string{"A2"}},
	{"RTX-A6000-48GB", 48 * gib, "ampere", []string{"RTX-A6000"}},
	{"RTX-3090-24GB", 24 * gib, "ampere", []string{"GeForce-RTX-3090", "RTX-3090"}},
	{"T4-16GB", 16 * gib, "turing", []string{"T4", "Tesla-T4", "nvidia-tesla-t4"}},
	{"V100-16GB", 16 * gib, "volta", []string{"Tesla-V100-SXM2-16GB", "Tesla-V100-PCIE-16GB", "V100-SXM2-16GB", "V100-PCIE-16GB", "Tesla-V100-DGXS-16GB", "nvidia-tesla-v100"}},
	{"V100-32GB", 32 * gib, "volta", []string{"Tesla-V100-SXM2-32GB", "Tesla-V100-PCIE-32GB", "Tesla-V100-SXM3-32GB", "V100-SXM2-32GB", "V100-PCIE-32GB", "Tesla-V100-DGXS-32GB"}},
	{"P100-16GB", 16 * gib, "pascal", []string{"Tesla-P100-PCIE-16GB", "Tesla-P100-SXM2-16GB", "nvidia-tesla-p100"}},
}

var byKey = func() map[string]int {
	index := make(map[string]int, 4*len(catalogue))
	for i, m := range catalogue {
		for _, name := range append([]string{m.Name}, m.Aliases...) {
			if other, taken := index[key(name)]; taken && other != i {
				panic("gpu: alias " + name + " belongs to both " + catalogue[other].Name + " and " + m.Name)
			}
			index[key(name)] = i
		}
	}
	return index
}()

// key folds what spellings differ in without meaning: case, blanks for dashes,
// and the vendor's prefix, which old drivers leave out.
func key(name string) string {
	k := strings.ToUpper(strings.TrimSpace(name))
	k = strings.Join(strings.FieldsFunc(k, func(r rune) bool { return r == ' ' || r == '_' || r == '-' }), "-")
	return strings.TrimPrefix(k, "NVIDIA-")
}

// Models lists the catalogue, newest architecture first. The caller owns the
// slice.
func Models() []Model {
	out := slices.Clone(catalogue)
	for i := range out {
		out[i].Aliases = slices.Clone(out[i].Aliases)
	}
	return out
}

// Lookup finds a model by its canonical name or any alias, whatever the case and
// with or without the prefix "NVIDIA-". It does not guess: "A100" comes in two
// sizes and finds nothing.
func Lookup(name string) (Model, bool) {
	if i, ok := byKey[key(name)]; ok {
		return catalogue[i], true
	}
	return Model{}, false
}

// productPrefixes are how NVML names begin. What begins so may be a product that
// the catalogue does not know yet; anything else unknown is a typing error.
var productPrefixes = []string{"NVIDIA-", "Tesla-", "Quadro-", "GeForce-", "GRID-", "TITAN-"}

// ProductPrefixes lists the beginnings by which CanonicalName tells a raw
// nvidia.com/gpu.product value from a misspelt model.
func ProductPrefixes() []string { return slices.Clone(productPrefixes) }

// CanonicalName turns what a person wrote into the name that nodes are compared
// by: a model's canonical name, or, for a product the catalogue does not know,
// the raw value of the label nvidia.com/gpu.product. An error says what to write
// instead.
func CanonicalName(name string) (string, error) {
	if m, ok := Lookup(name); ok {
		return m.Name, nil
	}
	base, suffix := splitProduct(name)
	if m, ok := Lookup(base); ok && suffix.mig != "" && suffix.invalid == "" {
		p, err := ParseProfile(suffix.mig)
		if err != nil {
			return "", err
		}
		return sliceModel(m.Name, p.Name), nil
	}
	for _, p := range productPrefixes {
		if strings.HasPrefix(name, p) && len(name) > len(p) && isLabelValue(name) {
			return name, nil
		}
	}
	if sizes := sizesOf(name); len(sizes) > 0 {
		return "", fmt.Errorf("%q comes in several kinds: write %s", name, strings.Join(sizes, " or "))
	}
	if near := nearest(name); near != "" {
		return "", fmt.Errorf("%q is not a known GPU model: did you mean %s?", name, near)
	}
	return "", fmt.Errorf("%q is not a known GPU model: write a canonical name such as H100-80GB, or the exact value of the node label nvidia.com/gpu.product", name)
}

// sizesOf lists the models whose name continues the given one after a dash:
// "A100" has A100-80GB and A100-40GB.
func sizesOf(name string) []string {
	var out []string
	if key(name) == "" {
		return nil
	}
	for _, m := range catalogue {
		if strings.HasPrefix(key(m.Name), key(name)+"-") {
			out = append(out, m.Name)
		}
	}
	return out
}

// nearest is the canonical name closest to a misspelt one, or "" when none is
// within a third of its length.
func nearest(name string) string {
	want := key(name)
	if want == "" || len(want) > 64 {
		return ""
	}
	best, bestDistance := "", len(want)/3+1
	for _, m := range catalogue {
		for _, spelling := range append([]string{m.Name}, m.Aliases...) {
			if d := editDistance(want, key(spelling)); d < bestDistance {
				best, bestDistance = m.Name, d
			}
		}
	}
	return best
}

// editDistance is Levenshtein's, over bytes.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitute := diagonal
			if a[i] != b[j] {
				substitute++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitute, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// isLabelValue says whether a node could carry this as a label's value.
func isLabelValue(s string) bool {
	if s == "" || len(s) > 63 {
		return false
	}
	for i, r := range s {
		alnum := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		inner := i > 0 && i < len(s)-1 && (r == '-' || r == '_' || r == '.')
		if !alnum && !inner {
			return false
		}
	}
	return true
}
