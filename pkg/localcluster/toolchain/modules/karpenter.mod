module spotbench.dev/toolchain/karpenter

go 1.25.0

require sigs.k8s.io/karpenter v1.8.0
