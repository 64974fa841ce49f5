// SPDX-License-Identifier: Apache-2.0

package shape

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// ResourceGPU is the extended resource of whole GPUs.
const ResourceGPU corev1.ResourceName = "nvidia.com/gpu"

// driverVersion is the driver the simulated nodes report.
const driverVersion = "570.133.20"

// InstanceID is the identity the cloud gives the machine, for example
// "i-0a1b2c3d4e5f60718". It depends on the cluster's and the node's name only.
func InstanceID(cluster, node string) string {
	return "i-" + digest("instance", cluster, node)[:17]
}

// ProviderID is the node's spec.providerID, as AWS's cloud controller sets it.
func (m Machine) ProviderID(cluster string) string {
	return "aws:///" + m.Zone + "/" + InstanceID(cluster, m.Name)
}

// GPUUUIDs are the identities of the node's GPUs in index order. They depend on
// the cluster's name, the node's name and the index only.
func (m Machine) GPUUUIDs(cluster string) []string {
	if m.GPU == nil {
		return nil
	}
	uuids := make([]string, m.GPU.Count)
	for i := range uuids {
		d := digest("gpu", cluster, m.Name, strconv.Itoa(i))
		uuids[i] = fmt.Sprintf("GPU-%s-%s-%s-%s-%s", d[:8], d[8:12], d[12:16], d[16:20], d[20:32])
	}
	return uuids
}

func digest(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:])
}

// NodeLabels are the labels of the node as its cloud, Karpenter and GPU Feature
// Discovery would set them, and those of the shape file on top.
func (s Shape) NodeLabels(m Machine) map[string]string {
	capacity := "ON_DEMAND"
	if m.CapacityType == "spot" {
		capacity = "SPOT"
	}
	labels := map[string]string{
		corev1.LabelHostname:             m.Name,
		corev1.LabelOSStable:             "linux",
		corev1.LabelArchStable:           "amd64",
		corev1.LabelTopologyRegion:       m.Region,
		corev1.LabelTopologyZone:         m.Zone,
		corev1.LabelInstanceTypeStable:   m.InstanceType,
		"karpenter.sh/capacity-type":     m.CapacityType,
		"eks.amazonaws.com/capacityType": capacity,
	}
	if m.GPU != nil {
		model := s.GPUModels[m.GPU.Model]
		major, minor, _ := strings.Cut(model.Compute, ".")
		maps.Copy(labels, map[string]string{
			"nvidia.com/gpu.present":              "true",
			"nvidia.com/gpu.product":              model.Product,
			"nvidia.com/gpu.memory":               strconv.Itoa(model.MemoryMiB),
			"nvidia.com/gpu.count":                strconv.Itoa(m.GPU.Count),
			"nvidia.com/gpu.family":               model.Family,
			"nvidia.com/gpu.compute.major":        major,
			"nvidia.com/gpu.compute.minor":        minor,
			"nvidia.com/cuda.driver-version.full": driverVersion,
			"nvidia.com/mig.capable":              strconv.FormatBool(model.MIG),
		})
	}
	maps.Copy(labels, m.Labels)
	return labels
}

// NodeTaints are the node's taints: GPU nodes keep pods away that do not ask
// for GPUs, and those of the shape file.
func (m Machine) NodeTaints() []corev1.Taint {
	var taints []corev1.Taint
	if m.GPU != nil {
		taints = append(taints, corev1.Taint{Key: string(ResourceGPU), Value: "present", Effect: corev1.TaintEffectNoSchedule})
	}
	for _, t := range m.Taints {
		// Parse checked them.
		if taint, err := parseTaint(t); err == nil {
			taints = append(taints, taint)
		}
	}
	return taints
}

func parseTaint(s string) (corev1.Taint, error) {
	keyValue, effect, ok := strings.Cut(s, ":")
	key, value, _ := strings.Cut(keyValue, "=")
	e := corev1.TaintEffect(effect)
	if !ok || key == "" || (e != corev1.TaintEffectNoSchedule && e != corev1.TaintEffectPreferNoSchedule && e != corev1.TaintEffectNoExecute) {
		return corev1.Taint{}, fmt.Errorf("%q is not a taint, want for example dedicated=benchmarks:NoSchedule", s)
	}
	return corev1.Taint{Key: key, Value: value, Effect: e}, nil
}

// DriverConfig is the scenario file of the simulated driver library: one line
// per GPU of key=value pairs.
func (s Shape) DriverConfig(m Machine, cluster string) string {
	if m.GPU == nil {
		return ""
	}
	model := s.GPUModels[m.GPU.Model]
	var b strings.Builder
	b.WriteString("# Simulated GPUs of this node; the UUIDs are those the device plugin advertises.\n")
	fmt.Fprintf(&b, "driver version=%s\n", driverVersion)
	for i, uuid := range m.GPUUUIDs(cluster) {
		fmt.Fprintf(&b, "gpu index=%d uuid=%s name=%q memory_mib=%d compute=%s\n", i, uuid, model.Name, model.MemoryMiB, model.Compute)
	}
	return b.String()
}
