// SPDX-License-Identifier: Apache-2.0

// Package gpu knows GPU models and reads what GPUs a node has, and from which
// pool of a cloud it comes, from the node's labels.
//
// It is pure: no client, no clock, no I/O.
//
// # Memory is nominal
//
// Three figures go by the name of a card's memory: what the vendor sells it as
// ("80 GB"), what is on the package (80 GiB of HBM on an A100 or H100, since DRAM
// comes in powers of two), and what the driver leaves for programs (81559 MiB on
// an H100 and 81920 MiB on an A100 of the same nominal size; 46068 MiB on an L40S
// whose ECC takes a sixteenth of its 48). Labels carry the driver's figure, so a
// plain comparison with 80Gi would refuse every H100.
//
// Spotbench compares nominal sizes only. The nominal size of "N GB" is N GiB: a
// pod that asks for 80Gi, 80G or 80GB-worth of bytes gets an 80 GB card, whatever
// its driver reports. Where the vendor sells less than is on the package (H200:
// 141 of 144 GB, B200: 180 of 192 GB) the sold size counts, because more is never
// there for a program. Only for models missing from the catalogue is the driver's
// figure used, rounded up to a whole GiB.
package gpu
