// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"fmt"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// runnerContainer is the container of a benchmark Job that measures.
const runnerContainer = "bench-runner"

// sweep is what a benchmark Job asks bench-runner to measure.
type sweep struct {
	// points is the number of concurrency levels, each of which makes one result.
	points int
	// requests is the number of measured requests per point.
	requests int
}

// sweepOf reads the sweep from the Job's own arguments, so that the demo expects
// what was asked for and not what somebody once wrote down.
func sweepOf(job *batchv1.Job) (sweep, error) {
	for _, c := range job.Spec.Template.Spec.Containers {
		if c.Name != runnerContainer {
			continue
		}
		flags := flagValues(c)
		requests, err := strconv.Atoi(flags["requests"])
		if err != nil {
			return sweep{}, fmt.Errorf("job %s: --requests %q: %w", job.Name, flags["requests"], err)
		}
		if flags["concurrency"] == "" {
			return sweep{}, fmt.Errorf("job %s: no --concurrency", job.Name)
		}
		return sweep{points: len(strings.Split(flags["concurrency"], ",")), requests: requests}, nil
	}
	return sweep{}, fmt.Errorf("job %s has no container %q", job.Name, runnerContainer)
}

// flagValues reads --name=value and --name value from a container's command line.
func flagValues(c corev1.Container) map[string]string {
	values := map[string]string{}
	args := append(append([]string{}, c.Command...), c.Args...)
	for i, arg := range args {
		name, isFlag := strings.CutPrefix(arg, "--")
		if !isFlag {
			continue
		}
		if name, value, ok := strings.Cut(name, "="); ok {
			values[name] = value
		} else if i+1 < len(args) && !strings.HasPrefix(args[i+1], "--") {
			values[name] = args[i+1]
		}
	}
	return values
}

// finished reports whether the Job completed, or an error once it has failed for good.
func finished(job *batchv1.Job) (bool, error) {
	for _, c := range job.Status.Conditions {
		if c.Status != corev1.ConditionTrue {
			continue
		}
		switch c.Type {
		case batchv1.JobComplete:
			return true, nil
		case batchv1.JobFailed:
			return false, fmt.Errorf("job %s failed: %s: %s", job.Name, c.Reason, c.Message)
		default: // the others are on the way to one of these
		}
	}
	return false, nil
}
