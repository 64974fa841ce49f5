// SPDX-License-Identifier: Apache-2.0

package benchspec

import (
	"fmt"
	"strings"

	"github.com/spotbench/spotbench/pkg/gpu"
)

// ReferencePage renders the table as docs/reference/annotations.md.
func ReferencePage() string {
	var b strings.Builder
	b.WriteString(`<!-- Generated from pkg/benchspec by "go generate ./pkg/benchspec". Do not edit. -->

# Annotations of a benchmark pod

What a pod says to Spotbench, all under ` + "`" + Prefix + "`" + `. A malformed value is rejected at
` + "`kubectl apply`" + ` (pods and the pod templates of Jobs, CronJobs, Deployments,
ReplicaSets, StatefulSets and DaemonSets), and refused by the scheduler where the
admission policy is not installed. The number of GPUs stays ` + "`nvidia.com/gpu`" + ` under
` + "`resources.limits`" + `.

| annotation | type | example | meaning | default |
|---|---|---|---|---|
`)
	for _, r := range table {
		if r.Writer == WriterUser {
			fmt.Fprintf(&b, "| `%s` | %s | `%s` | %s | %s |\n", strings.TrimPrefix(r.Name, Prefix), r.Type, r.Example, r.Meaning, r.Default)
		}
	}
	b.WriteString("\nWritten by Spotbench, and by nobody else:\n\n| annotation | type | example | meaning |\n|---|---|---|---|\n")
	for _, r := range table {
		if r.Writer != WriterUser {
			fmt.Fprintf(&b, "| `%s` | %s | `%s` | %s |\n", strings.TrimPrefix(r.Name, Prefix), r.Type, r.Example, r.Meaning)
		}
	}
	b.WriteString("\n## What each value must be\n\n")
	for _, r := range table {
		if r.Writer == WriterUser {
			fmt.Fprintf(&b, "- `%s`: %s.\n", strings.TrimPrefix(r.Name, Prefix), r.kind.wants)
		}
	}
	for _, rule := range together {
		fmt.Fprintf(&b, "- `%s` %s.\n", strings.TrimPrefix(rule.annotation, Prefix), strings.ReplaceAll(rule.problem, Prefix, ""))
	}
	b.WriteString(`
## GPU models

Names are matched without regard to case, with or without the prefix ` + "`NVIDIA-`" + `. The
memory is nominal: N GB as sold, counted as N GiB. ` + "`gpu-memory: 80Gi`" + ` (or ` + "`80G`" + `)
accepts every model of 80 GB or more, although the driver of an H100-80GB reports
81559 MiB, less than 80 GiB.

| model | nominal memory | architecture | also known as |
|---|---|---|---|
`)
	for _, m := range gpu.Models() {
		fmt.Fprintf(&b, "| `%s` | %d GiB | %s | `%s` |\n", m.Name, m.MemoryBytes>>30, m.Architecture, strings.Join(m.Aliases, "`, `"))
	}
	return b.String()
}
