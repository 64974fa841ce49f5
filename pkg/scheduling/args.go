// SPDX-License-Identifier: Apache-2.0

package scheduling

import (
	"errors"
	"fmt"
	"os"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/spotbench/spotbench/pkg/placement"
	"github.com/spotbench/spotbench/pkg/pricing"
	"github.com/spotbench/spotbench/pkg/risk"
)

// Args is the plugin's part of KubeSchedulerConfiguration (profiles[].pluginConfig,
// name SpotbenchPlacement). Every field is optional.
type Args struct {
	// PricesFile is the price book (package pricing). Without one no price is known
	// and nodes are ranked by expected time.
	PricesFile string `json:"pricesFile,omitempty"`
	// PriceMaxAge is the age from which a price is said to be old; default 720h. Old
	// prices are used all the same: the order of pools changes less than their level.
	PriceMaxAge *metav1.Duration `json:"priceMaxAge,omitempty"`
	// HazardsFile has the hazards of spot pools (package risk). Without one every
	// spot pool has the built-in default.
	HazardsFile string `json:"hazardsFile,omitempty"`
	// CatalogURL is the catalog that learns risks from what happens, for example
	// https://api-service.model-catalog.svc:8000. Without one hazardsFile alone holds.
	CatalogURL string `json:"catalogURL,omitempty"`
	// CatalogCAFile is the authority of the catalog's certificate, PEM; default the
	// system's.
	CatalogCAFile string `json:"catalogCAFile,omitempty"`
	// RiskRefresh is the time between two questions to the catalog; default 1m.
	RiskRefresh *metav1.Duration `json:"riskRefresh,omitempty"`
	// DefaultExpectedDuration is the work of pods that do not say; default 1h.
	DefaultExpectedDuration *metav1.Duration `json:"defaultExpectedDuration,omitempty"`
	// CheckpointCost is how long one checkpoint holds up a run; default 10s.
	CheckpointCost *metav1.Duration `json:"checkpointCost,omitempty"`
	// RestartCost is the time from an interruption to the run going on elsewhere;
	// default 3m.
	RestartCost *metav1.Duration `json:"restartCost,omitempty"`
	// DeadlineMargin is how much earlier than needed a pod with a deadline that waits
	// for spot starts on demand; default 15m.
	DeadlineMargin *metav1.Duration `json:"deadlineMargin,omitempty"`
	// NoticeSaves is the probability, from 0 to 1, that an interruption comes with a
	// notice early enough for a checkpoint; default 0.9 (AWS calls its notices best
	// effort).
	NoticeSaves *float64 `json:"noticeSaves,omitempty"`
	// GPUHourUSD is what a GPU-hour that a placement takes from the pods to come, by
	// fragmentation or scarcity, counts for beside the expected cost; default 1. With 0
	// it decides only between nodes that cost the same.
	GPUHourUSD *float64 `json:"gpuHourUSD,omitempty"`
}

// DecodeArgs reads Args from what the framework hands to a plugin: nil, or the raw
// text of pluginConfig[].args. Unknown fields are errors.
func DecodeArgs(obj runtime.Object) (Args, error) {
	var args Args
	switch raw := obj.(type) {
	case nil:
	case *runtime.Unknown:
		if err := yaml.UnmarshalStrict(raw.Raw, &args); err != nil {
			return Args{}, fmt.Errorf("pluginConfig %s: args: %w", Name, err)
		}
	default:
		return Args{}, fmt.Errorf("pluginConfig %s: args are a %T; write them as plain YAML without kind and apiVersion", Name, obj)
	}
	return args, args.validate()
}

// longestAssumption bounds assumed durations; more is a typing error.
const longestAssumption = 30 * 24 * time.Hour

func (a Args) validate() error {
	var problems []error
	for _, d := range []struct {
		field    string
		value    *metav1.Duration
		positive bool
	}{
		{"defaultExpectedDuration", a.DefaultExpectedDuration, true},
		{"riskRefresh", a.RiskRefresh, true},
		{"checkpointCost", a.CheckpointCost, false},
		{"restartCost", a.RestartCost, false},
		{"deadlineMargin", a.DeadlineMargin, false},
	} {
		if d.value == nil {
			continue
		}
		if v := d.value.Duration; v < 0 || (d.positive && v == 0) || v > longestAssumption {
			problems = append(problems, fmt.Errorf("pluginConfig %s: args.%s is %s; write a duration such as 45m, at most 720h", Name, d.field, v))
		}
	}
	if age := a.PriceMaxAge; age != nil && age.Duration <= 0 {
		problems = append(problems, fmt.Errorf("pluginConfig %s: args.priceMaxAge is %s; write a duration above zero, such as 720h", Name, age.Duration))
	}
	if p := a.NoticeSaves; p != nil && !(*p >= 0 && *p <= 1) {
		problems = append(problems, fmt.Errorf("pluginConfig %s: args.noticeSaves is %v; write a probability from 0 to 1, such as 0.9", Name, *p))
	}
	if usd := a.GPUHourUSD; usd != nil && !(*usd >= 0 && *usd <= 1000) {
		problems = append(problems, fmt.Errorf("pluginConfig %s: args.gpuHourUSD is %v; write US dollars from 0 to 1000, such as 1", Name, *usd))
	}
	return errors.Join(problems...)
}

// priceMaxAge is the age from which a price is old.
func (a Args) priceMaxAge() time.Duration {
	if a.PriceMaxAge == nil {
		return 30 * 24 * time.Hour
	}
	return a.PriceMaxAge.Duration
}

func (a Args) riskRefresh() time.Duration {
	if a.RiskRefresh == nil {
		return time.Minute
	}
	return a.RiskRefresh.Duration
}

// Assumptions are the arguments with their defaults.
func (a Args) Assumptions() placement.Assumptions {
	or := func(d *metav1.Duration, fallback time.Duration) time.Duration {
		if d == nil {
			return fallback
		}
		return d.Duration
	}
	saves := 0.9
	if a.NoticeSaves != nil {
		saves = *a.NoticeSaves
	}
	worth := 1.0
	if a.GPUHourUSD != nil {
		worth = *a.GPUHourUSD
	}
	return placement.Assumptions{
		ExpectedDuration: or(a.DefaultExpectedDuration, time.Hour),
		CheckpointCost:   or(a.CheckpointCost, 10*time.Second),
		RestartCost:      or(a.RestartCost, 3*time.Minute),
		DeadlineMargin:   or(a.DeadlineMargin, 15*time.Minute),
		NoticeSaves:      saves,
		GPUHourUSD:       worth,
	}
}

// Load reads the files the arguments name.
func (a Args) Load() (pricing.Book, risk.Book, error) {
	var prices pricing.Book
	var hazards risk.Book
	if a.PricesFile != "" {
		data, err := os.ReadFile(a.PricesFile)
		if err != nil {
			return prices, hazards, fmt.Errorf("pluginConfig %s: args.pricesFile: %w", Name, err)
		}
		if prices, err = pricing.Parse(data); err != nil {
			return prices, hazards, fmt.Errorf("pluginConfig %s: args.pricesFile %s: %w", Name, a.PricesFile, err)
		}
	}
	if a.HazardsFile != "" {
		data, err := os.ReadFile(a.HazardsFile)
		if err != nil {
			return prices, hazards, fmt.Errorf("pluginConfig %s: args.hazardsFile: %w", Name, err)
		}
		if hazards, err = risk.ParseBook(data); err != nil {
			return prices, hazards, fmt.Errorf("pluginConfig %s: args.hazardsFile %s: %w", Name, a.HazardsFile, err)
		}
	}
	return prices, hazards, nil
}
