// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
)

func FuzzReadPods(f *testing.F) {
	f.Add(threeAndOne)
	f.Add("kind: List\nitems:\n- {kind: CronJob, spec: {jobTemplate: {spec: {parallelism: 2, template: {spec: {containers: [{}]}}}}}}\n")
	f.Fuzz(func(t *testing.T, text string) {
		pods, _, err := readPods(strings.NewReader(text), "bench")
		if err == nil && len(pods) == 0 {
			t.Error("no pods and no error")
		}
		for _, p := range pods {
			if p.Namespace == "" || len(pods) > mostPods {
				t.Errorf("%d pods, one of them %+v", len(pods), p)
			}
		}
	})
}
