// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

func TestSweepOf(t *testing.T) {
	tests := map[string]struct {
		container corev1.Container
		want      sweep
		wantErr   bool
	}{
		"three concurrency levels of 40 requests are three results": {
			container: corev1.Container{Name: runnerContainer, Args: []string{"--concurrency", "1,4,16", "--requests", "40"}},
			want:      sweep{points: 3, requests: 40},
		},
		"flags may carry their value after an equals sign": {
			container: corev1.Container{Name: runnerContainer, Args: []string{"--concurrency=8", "--requests=5"}},
			want:      sweep{points: 1, requests: 5},
		},
		"a flag without a value does not swallow the next flag": {
			container: corev1.Container{Name: runnerContainer, Args: []string{"--detailed", "--concurrency=8", "--requests=5"}},
			want:      sweep{points: 1, requests: 5},
		},
		"a job without a runner is an error": {
			container: corev1.Container{Name: "other", Args: []string{"--concurrency=8", "--requests=5"}},
			wantErr:   true,
		},
		"a request count that is no number is an error": {
			container: corev1.Container{Name: runnerContainer, Args: []string{"--concurrency=8", "--requests=many"}},
			wantErr:   true,
		},
		"a sweep without levels is an error": {
			container: corev1.Container{Name: runnerContainer, Args: []string{"--requests=5"}},
			wantErr:   true,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			job := &batchv1.Job{Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{tt.container}}}}}
			got, err := sweepOf(job)
			if (err != nil) != tt.wantErr {
				t.Fatalf("error %v, want error %v", err, tt.wantErr)
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(sweep{})); diff != "" {
				t.Errorf("sweep (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFinished(t *testing.T) {
	job := func(kind batchv1.JobConditionType, status corev1.ConditionStatus) *batchv1.Job {
		return &batchv1.Job{Status: batchv1.JobStatus{Conditions: []batchv1.JobCondition{{Type: kind, Status: status}}}}
	}
	tests := map[string]struct {
		job      *batchv1.Job
		wantDone bool
		wantErr  bool
	}{
		"a job with no condition still runs":             {job: &batchv1.Job{}},
		"a complete job is finished":                     {job: job(batchv1.JobComplete, corev1.ConditionTrue), wantDone: true},
		"a condition that is false says nothing":         {job: job(batchv1.JobFailed, corev1.ConditionFalse)},
		"a failed job is an error":                       {job: job(batchv1.JobFailed, corev1.ConditionTrue), wantErr: true},
		"a job about to fail is not yet finished either": {job: job(batchv1.JobFailureTarget, corev1.ConditionTrue)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			done, err := finished(tt.job)
			if done != tt.wantDone || (err != nil) != tt.wantErr {
				t.Errorf("finished = %v, %v; want %v, error %v", done, err, tt.wantDone, tt.wantErr)
			}
		})
	}
}
