// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spotbench/spotbench/pkg/placement/claims"
)

// claimModels are the models that pods want of claims, by "KIND NAME" of the claim or
// of the template it is made from.
type claimModels map[string][]string

// add notes what a pod wants of its claims.
func (m claimModels) add(podClaims []any, models []string) error {
	for _, c := range podClaims {
		claim, _ := c.(object)
		for field, kind := range map[string]string{"resourceClaimTemplateName": "ResourceClaimTemplate", "resourceClaimName": "ResourceClaim"} {
			name, _ := claim[field].(string)
			if name == "" {
				continue
			}
			key := kind + " " + name
			if other, known := m[key]; known && !slices.Equal(other, models) {
				return fmt.Errorf("%s is of several pods that want different models, %s and %s; give each its own", key, strings.Join(other, ", "), strings.Join(models, ", "))
			}
			m[key] = models
		}
	}
	return nil
}

// render narrows a claim, or a template of one, to the models that its pods want.
func (m claimModels) render(doc object) error {
	if items, isList := doc["items"].([]any); isList {
		for i, item := range items {
			if o, ok := item.(object); ok {
				if err := m.render(o); err != nil {
					return fmt.Errorf("items[%d]: %w", i, err)
				}
			}
		}
		return nil
	}
	metadata, _ := doc["metadata"].(object)
	key := fmt.Sprintf("%v %v", doc["kind"], metadata["name"])
	models := m[key]
	if len(models) == 0 {
		return nil
	}
	spec, _ := doc["spec"].(object)
	if doc["kind"] == "ResourceClaimTemplate" {
		spec, _ = spec["spec"].(object)
	}
	devices, _ := spec["devices"].(object)
	requests, _ := devices["requests"].([]any)
	if len(requests) == 0 {
		return fmt.Errorf("%s: spec.devices.requests is empty; write what to ask for, such as {name: gpu, exactly: {deviceClassName: gpu.nvidia.com}}", key)
	}
	selector := claims.Selector(models)
	for _, r := range requests {
		request, _ := r.(object)
		if exactly, ok := request["exactly"].(object); ok {
			selectOnly(exactly, selector)
		}
		alternatives, _ := request["firstAvailable"].([]any)
		for _, a := range alternatives {
			if alternative, ok := a.(object); ok {
				selectOnly(alternative, selector)
			}
		}
	}
	return nil
}

// selectOnly adds a selector to a request that does not have it.
func selectOnly(request object, expression string) {
	selectors, _ := request["selectors"].([]any)
	for _, s := range selectors {
		selector, _ := s.(object)
		if cel, _ := selector["cel"].(object); cel["expression"] == expression {
			return
		}
	}
	selectors = append(selectors, object{"cel": object{"expression": expression}})
	request["selectors"] = selectors
}
