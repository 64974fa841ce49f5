// SPDX-License-Identifier: Apache-2.0

package podvolume_test

import (
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/spotbench/spotbench/pkg/agent/podvolume"
)

func TestDir(t *testing.T) {
	emptyDir := corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}
	tests := map[string]struct {
		volume      corev1.VolumeSource
		mount       corev1.VolumeMount
		path        string
		want        string
		unsupported bool
	}{
		"the directory of an emptyDir is below the pod's UID": {
			volume: emptyDir, mount: corev1.VolumeMount{MountPath: "/checkpoint"}, path: "/checkpoint",
			want: "/var/lib/kubelet/pods/uid-1/volumes/kubernetes.io~empty-dir/data",
		},
		"a slash at the end of the mount makes no difference": {
			volume: emptyDir, mount: corev1.VolumeMount{MountPath: "/data/"}, path: "/data",
			want: "/var/lib/kubelet/pods/uid-1/volumes/kubernetes.io~empty-dir/data",
		},
		"a directory inside the mount is refused, since the pod may make it a link": {
			volume: emptyDir, mount: corev1.VolumeMount{MountPath: "/data"}, path: "/data/checkpoint", unsupported: true,
		},
		"a subPath is refused, since the pod may make it a link": {
			volume: emptyDir, mount: corev1.VolumeMount{MountPath: "/checkpoint", SubPath: "a/b"}, path: "/checkpoint", unsupported: true,
		},
		"dots in the path do not leave the volume": {
			volume: emptyDir, mount: corev1.VolumeMount{MountPath: "/checkpoint"}, path: "/checkpoint/x/..",
			want: "/var/lib/kubelet/pods/uid-1/volumes/kubernetes.io~empty-dir/data",
		},
		"a path that only starts with the mount's name is not in it": {
			volume: emptyDir, mount: corev1.VolumeMount{MountPath: "/check"}, path: "/checkpoint",
		},
		"a volume in memory is not supported": {
			volume: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}},
			mount:  corev1.VolumeMount{MountPath: "/checkpoint"}, path: "/checkpoint", unsupported: true,
		},
		"a directory of the node itself is not supported": {
			volume: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/etc"}},
			mount:  corev1.VolumeMount{MountPath: "/checkpoint"}, path: "/checkpoint", unsupported: true,
		},
		"an expanded subPath is not supported": {
			volume: emptyDir, mount: corev1.VolumeMount{MountPath: "/checkpoint", SubPathExpr: "$(POD)"}, path: "/checkpoint", unsupported: true,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.mount.Name = "data"
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "uid-1"}, Spec: corev1.PodSpec{
				Volumes:    []corev1.Volume{{Name: "data", VolumeSource: tt.volume}},
				Containers: []corev1.Container{{VolumeMounts: []corev1.VolumeMount{tt.mount}}},
			}}
			got, err := podvolume.Dir("/var/lib/kubelet", pod, tt.path)
			if got != tt.want || (err == nil) != (tt.want != "") || errors.Is(err, podvolume.ErrUnsupported) != tt.unsupported {
				t.Errorf("Dir = %q, %v", got, err)
			}
		})
	}
}

func TestTheInnermostMountWins(t *testing.T) {
	volume := func(name string) corev1.Volume {
		return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "uid-1"}, Spec: corev1.PodSpec{
		Volumes: []corev1.Volume{volume("outer"), volume("inner")},
		Containers: []corev1.Container{{VolumeMounts: []corev1.VolumeMount{
			{Name: "inner", MountPath: "/data/checkpoint"}, {Name: "outer", MountPath: "/data"}}}},
	}}
	got, err := podvolume.Dir("/k", pod, "/data/checkpoint")
	if want := "/k/pods/uid-1/volumes/kubernetes.io~empty-dir/inner"; err != nil || got != want {
		t.Errorf("Dir = %q, %v; want %q", got, err, want)
	}
}
