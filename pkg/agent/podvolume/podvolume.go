// SPDX-License-Identifier: Apache-2.0

// Package podvolume finds where a directory of a pod lies on its node.
package podvolume

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// ErrUnsupported marks a volume whose files the agent does not reach.
var ErrUnsupported = errors.New("only emptyDir volumes on disk, mounted whole at that path, are supported")

// Dir returns the directory on the node that a container of the pod sees at
// mountPath, below kubeletRoot (usually /var/lib/kubelet). It is the root of a
// volume: a directory inside of one could be replaced by the pod with a link that
// leads the agent, which is root, elsewhere on the node. The error names the pod's
// mounts where none fits.
func Dir(kubeletRoot string, pod *corev1.Pod, mountPath string) (string, error) {
	mountPath = path.Clean(mountPath)
	var best *corev1.VolumeMount
	var seen []string
	for _, c := range pod.Spec.Containers {
		for i, m := range c.VolumeMounts {
			seen = append(seen, m.MountPath)
			if within(path.Clean(m.MountPath), mountPath) && (best == nil || len(m.MountPath) > len(best.MountPath)) {
				best = &c.VolumeMounts[i]
			}
		}
	}
	if best == nil {
		return "", fmt.Errorf("no container of the pod mounts a volume at %s (its mounts: %s)", mountPath, strings.Join(seen, ", "))
	}
	if best.SubPath != "" || best.SubPathExpr != "" {
		return "", fmt.Errorf("the volume at %s is mounted with subPath or subPathExpr: %w", best.MountPath, ErrUnsupported)
	}
	if path.Clean(best.MountPath) != mountPath {
		return "", fmt.Errorf("%s is inside the volume mounted at %s; mount one there: %w", mountPath, best.MountPath, ErrUnsupported)
	}
	for _, v := range pod.Spec.Volumes {
		if v.Name != best.Name {
			continue
		}
		if v.EmptyDir == nil || v.EmptyDir.Medium != corev1.StorageMediumDefault {
			return "", fmt.Errorf("the volume %q at %s: %w", v.Name, best.MountPath, ErrUnsupported)
		}
		return filepath.Join(kubeletRoot, "pods", string(pod.UID), "volumes", "kubernetes.io~empty-dir", v.Name), nil
	}
	return "", fmt.Errorf("the pod has no volume %q", best.Name)
}

// within reports whether p is dir or lies below it.
func within(dir, p string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir+"/")
}
