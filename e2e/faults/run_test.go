// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults_test

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/checkpoint"
)

// job is what a test asks of its benchmark. A step takes 0.1 s.
type job struct {
	name string
	// steps to do; 150 if 0.
	steps int
	// blob is other state in the checkpoint, made anew at each checkpoint for rewrite.
	blob    string
	rewrite bool
	// interval of the periodic checkpoints; none within the test if empty.
	interval string
	grace    int64 // seconds; 5 if 0
	// replaceAtOnce starts the next pod when the last one is being deleted, as Jobs
	// without a podFailurePolicy do, and gives a node that is not ready up after 2 s.
	replaceAtOnce bool
}

const stepTime = 100 * time.Millisecond

// run is a benchmark of a test.
type run struct {
	t   *testing.T
	job job
	key string
}

// start submits the benchmark to a node, where it does its first steps.
func start(t *testing.T, node string, j job) *run {
	t.Helper()
	if j.steps == 0 {
		j.steps = 150
	}
	if j.grace == 0 {
		j.grace = 5
	}
	if j.interval == "" {
		j.interval = "10m"
	}
	r := &run{t: t, job: j, key: workloads + "/" + j.name}
	store.set(r.key, fault{}) // its requests are counted from here on
	open(t, j.name, node)
	if _, err := stage.Client.BatchV1().Jobs(workloads).Create(t.Context(), j.object(), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s: %s", j.name, r.describe())
		}
		background := metav1.DeletePropagationBackground
		if err := stage.Client.BatchV1().Jobs(workloads).Delete(cleanupContext(t), j.name, metav1.DeleteOptions{PropagationPolicy: &background}); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (j job) object() *batchv1.Job {
	yes, no, user := true, false, int64(65532)
	retries := int32(6)
	blob := "0"
	if j.blob != "" {
		q := resource.MustParse(j.blob)
		blob = strconv.FormatInt(q.Value(), 10)
	}
	locked := &corev1.SecurityContext{AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}
	checkpoint := corev1.VolumeMount{Name: "checkpoint", MountPath: "/checkpoint"}
	object := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: workloads, Name: j.name},
		Spec: batchv1.JobSpec{BackoffLimit: &retries, Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{
				"spotbench.dev/run": j.name, "spotbench.dev/model": "worker", "spotbench.dev/benchmark": "steps",
				"spotbench.dev/checkpoint-path": "/checkpoint", "spotbench.dev/checkpoint-interval": j.interval, "spotbench.dev/checkpoint-signal": "SIGUSR1",
				"spotbench.dev/results-path": "/results"}},
			Spec: corev1.PodSpec{
				SchedulerName: "spotbench", RestartPolicy: corev1.RestartPolicyNever, TerminationGracePeriodSeconds: &j.grace, AutomountServiceAccountToken: &no,
				NodeSelector: map[string]string{label(j.name): ""},
				Tolerations:  []corev1.Toleration{{Key: "nvidia.com/gpu", Operator: corev1.TolerationOpExists}},
				SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: &yes, RunAsUser: &user, RunAsGroup: &user, FSGroup: &user,
					SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
				InitContainers: []corev1.Container{{Name: "restore", Image: "spotbench.dev/node-agent:dev", ImagePullPolicy: corev1.PullNever,
					Args: []string{"restore", "--path", "/checkpoint", "--timeout", "5m"}, VolumeMounts: []corev1.VolumeMount{checkpoint}, SecurityContext: locked}},
				Containers: []corev1.Container{{Name: "worker", Image: workerImage, ImagePullPolicy: corev1.PullNever, SecurityContext: locked,
					Args: []string{"-run", j.name, "-report", steps.conn.LocalAddr().String(), "-steps", strconv.Itoa(j.steps), "-every", stepTime.String(),
						"-blob", blob, fmt.Sprintf("-rewrite=%t", j.rewrite), "-results", "/results"},
					Env:          []corev1.EnvVar{{Name: "POD_NAME", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}},
					VolumeMounts: []corev1.VolumeMount{checkpoint, {Name: "results", MountPath: "/results"}}}},
				Volumes: []corev1.Volume{{Name: "checkpoint", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
					{Name: "results", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
			}}},
	}
	if j.replaceAtOnce {
		soon := int64(2)
		for _, key := range []string{corev1.TaintNodeUnreachable, corev1.TaintNodeNotReady} {
			object.Spec.Template.Spec.Tolerations = append(object.Spec.Template.Spec.Tolerations,
				corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &soon})
		}
		return object
	}
	failed := batchv1.Failed
	object.Spec.PodReplacementPolicy = &failed
	object.Spec.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{
		{Action: batchv1.PodFailurePolicyActionIgnore, OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}}},
		{Action: batchv1.PodFailurePolicyActionIgnore, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{75}}}}}
	return object
}

// awaitSteps waits until the n-th pod of the run has done that many steps in all.
func (r *run) awaitSteps(pod, count int) {
	r.t.Helper()
	eventually(r.t, 90*time.Second, fmt.Sprintf("pod %d of %s to do step %d", pod, r.job.name, count), func() bool {
		pods := steps.of(r.job.name)
		return len(pods) >= pod && pods[pod-1].last >= count
	})
}

// awaitGeneration waits until the run has a checkpoint, in the store of all or in
// another one.
func (r *run) awaitGeneration(instead *url.URL) {
	r.t.Helper()
	s := checkpoints(r.t)
	if instead != nil {
		var err error
		if s, err = checkpoint.Open(r.t.Context(), checkpoint.Options{URL: storeURL(instead.Host)}); err != nil {
			r.t.Fatal(err)
		}
		defer s.Close()
	}
	eventually(r.t, time.Minute, "a checkpoint of "+r.job.name, func() bool {
		_, found, err := s.Latest(r.t.Context(), r.key)
		return err == nil && found
	})
}

// finished waits for the Job's end, and returns what each of its pods did.
func (r *run) finished(pods int) []stretch {
	r.t.Helper()
	eventually(r.t, 3*time.Minute, "job "+r.job.name+" to complete", func() bool {
		object, err := stage.Client.BatchV1().Jobs(workloads).Get(r.t.Context(), r.job.name, metav1.GetOptions{})
		if err != nil {
			return false
		}
		for _, c := range object.Status.Conditions {
			if c.Type == batchv1.JobFailed && c.Status == corev1.ConditionTrue {
				r.t.Fatalf("job %s failed: %s: %s", r.job.name, c.Reason, c.Message)
			}
		}
		return object.Status.Succeeded == 1
	})
	did := steps.of(r.job.name)
	if len(did) != pods {
		r.t.Fatalf("%d pods worked on %s, want %d: %s", len(did), r.job.name, pods, r.describe())
	}
	// The worker has refused to go on with a gap; here nothing must be missing between
	// where one went on and the end.
	for step := did[pods-1].after + 1; step <= r.job.steps; step++ {
		if did[pods-1].done[step].IsZero() {
			r.t.Errorf("%s: the last pod did not do step %d", r.job.name, step)
		}
	}
	return did
}

// lostBetween is the work that a pod did after the state that the next one went on from,
// in seconds.
func lostBetween(before, next stretch) float64 { return before.since(next.after, before.last) }

// since is the time that the pod took from one step to a later one.
func (s stretch) since(step, later int) float64 {
	if later <= step {
		return 0
	}
	from := s.done[step]
	if step <= s.after {
		from = s.begun
	}
	return s.done[later].Sub(from).Seconds()
}

// recorded wants the catalog to have the run whole: finished, its result once with every
// step in it, and each interruption once, with as much work lost as was measured.
func (r *run) recorded(lost ...float64) catalog.Detail {
	r.t.Helper()
	return r.recordedWithin(tolerance, lost...)
}

func (r *run) recordedWithin(tolerance float64, lost ...float64) catalog.Detail {
	r.t.Helper()
	var got catalog.Detail
	var missing string
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(300 * time.Millisecond) {
		var err error
		got, err = stage.Catalog.GetRun(r.t.Context(), r.key)
		if err != nil {
			missing = err.Error()
		} else if missing = r.incomplete(got, tolerance, lost); missing == "" {
			return got
		}
		if time.Now().After(deadline) {
			r.t.Errorf("%s in the catalog: %s\n%+v", r.key, missing, got)
			return got
		}
	}
}

// tolerance is how far the agent's figure may be from the ledger's: a step, and the time
// between the last step and the end of the process.
const tolerance = 0.6

func (r *run) incomplete(got catalog.Detail, tolerance float64, lost []float64) string {
	switch {
	case got.Status != catalog.Succeeded:
		return "its status is " + string(got.Status)
	case len(got.Results) != 1 || got.Results[0].Completed != int64(r.job.steps):
		return fmt.Sprintf("it has %d results, want one with %d steps", len(got.Results), r.job.steps)
	case len(got.Interruptions) != len(lost):
		return fmt.Sprintf("%d interruptions, want %d", len(got.Interruptions), len(lost))
	}
	for i, want := range lost {
		in := got.Interruptions[i]
		if in.WorkLostSeconds == nil || in.Outcome == "" || in.NoticeAt.IsZero() || in.Node == "" {
			return fmt.Sprintf("interruption %d is not whole: %+v", i+1, in)
		}
		if d := *in.WorkLostSeconds - want; d > tolerance || d < -tolerance {
			return fmt.Sprintf("interruption %d cost %.2f s, by the ledger %.2f s", i+1, *in.WorkLostSeconds, want)
		}
	}
	for _, s := range got.Segments {
		if s.EndedAt.IsZero() {
			return "the segment on " + s.Node + " has no end"
		}
	}
	return ""
}

// describe says what became of the run's pods.
func (r *run) describe() string {
	var lines []string
	for _, s := range steps.of(r.job.name) {
		lines = append(lines, fmt.Sprintf("%s went on after step %d and did up to %d", s.pod, s.after, s.last))
	}
	pods, err := stage.Client.CoreV1().Pods(workloads).List(cleanupContext(r.t), metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=" + r.job.name})
	if err != nil {
		return err.Error()
	}
	for _, p := range pods.Items {
		parts := []string{fmt.Sprintf("%s on %s: %s %s", p.Name, p.Spec.NodeName, p.Status.Phase, p.Status.Message)}
		for _, s := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
			if w := s.State.Waiting; w != nil {
				parts = append(parts, fmt.Sprintf("%s waits: %s %s", s.Name, w.Reason, w.Message))
			} else if e := s.State.Terminated; e != nil {
				parts = append(parts, fmt.Sprintf("%s ended: %s %d %s", s.Name, e.Reason, e.ExitCode, e.Message))
			}
		}
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
				parts = append(parts, c.Message)
			}
		}
		lines = append(lines, strings.Join(parts, "; "))
	}
	return strings.Join(lines, "\n  ")
}
