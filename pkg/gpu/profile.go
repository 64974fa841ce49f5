// SPDX-License-Identifier: Apache-2.0

package gpu

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// ProfilePattern matches a MIG profile as labels and resource names spell it:
// "1g.10gb", "1g.10gb.me", "1c.3g.20gb". Programs of NVIDIA's write the attributes
// after a plus sign ("1g.10gb+me"), which labels cannot have.
const ProfilePattern = `([1-9]c\.)?[1-9]g\.[1-9][0-9]{0,3}gb([.-][a-z]+)*`

var profileParts = regexp.MustCompile(`^(?:([1-9])c\.)?([1-9])g\.([1-9][0-9]{0,3})gb((?:[.-][a-z]+)*)$`)

// Profile is a kind of MIG slice.
type Profile struct {
	// Name is how labels and resource names spell it.
	Name string
	// Compute is how many of the card's compute slices it has: those of the compute
	// instance, where the name begins with one ("1c.3g.20gb" has 1), else of the GPU
	// instance.
	Compute int
	// MemoryBytes is nominal, like a card's: N gb counted as N GiB. Compute instances
	// of one GPU instance share it.
	MemoryBytes int64
}

// ParseProfile reads a profile, with its attributes after a dot, a plus or a minus
// sign.
func ParseProfile(name string) (Profile, error) {
	spelt := strings.ReplaceAll(name, "+", ".")
	parts := profileParts.FindStringSubmatch(spelt)
	if parts == nil {
		return Profile{}, fmt.Errorf("%q is no MIG profile: write one such as 1g.10gb", name)
	}
	compute := parts[2]
	if parts[1] != "" {
		compute = parts[1]
	}
	return Profile{Name: spelt, Compute: atoi(compute), MemoryBytes: int64(atoi(parts[3])) * gib}, nil
}

// computeSlices is into how many compute slices MIG divides a card: 7, but 4 of those
// that are named here (NVIDIA MIG User Guide, "Supported MIG Profiles").
func computeSlices(card string) int {
	switch card {
	case "A30-24GB", "RTX-PRO-6000-96GB":
		return 4
	}
	return 7
}

// partOf is the part of a card that a slice is, at most all of it.
func (p Profile) partOf(card string) float64 {
	all := computeSlices(card)
	return float64(min(p.Compute, all)) / float64(all)
}

// sliceModel is the model of a card's slices: their results compare with no whole
// card's.
func sliceModel(card, profile string) string {
	if card == "" {
		return ""
	}
	return card + "-MIG-" + profile
}

func gigabytes(bytes int64) string { return strconv.FormatInt(bytes/gib, 10) + "GB" }
