// SPDX-License-Identifier: Apache-2.0

package claims

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spotbench/spotbench/pkg/gpu"
)

// Selector is CEL by which a request is given only GPUs of models, by the names that
// gpu.CanonicalName returns. Devices of other drivers it lets pass, so that it may
// stand in every request of a claim.
func Selector(models []string) string {
	const attributes = `device.attributes["` + Driver + `"]`
	ways := []string{`device.driver != "` + Driver + `"`}
	var cards []string
	for _, model := range models {
		card, profile, isSlice := strings.Cut(model, "-MIG-")
		if !isSlice {
			cards = append(cards, gpu.ProductNames(card)...)
			continue
		}
		ways = append(ways, fmt.Sprintf(`"profile" in %[1]s && %[1]s.profile.replace("+", ".") == %q && %s`, attributes, profile, isOneOf(gpu.ProductNames(card))))
	}
	if len(cards) > 0 {
		ways = append(ways, isOneOf(cards))
	}
	return strings.Join(ways, " || ")
}

func isOneOf(products []string) string {
	quoted := make([]string, len(products))
	for i, p := range products {
		quoted[i] = strconv.Quote(p)
	}
	return `device.attributes["` + Driver + `"].productName.lowerAscii().replace(" ", "-") in [` + strings.Join(quoted, ", ") + `]`
}
