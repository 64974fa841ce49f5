#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs every fuzz target of the tree in turn, each for FUZZTIME. Inputs that only reach new
# code are made smaller in a few tries: by default that takes up to a minute of each target's time.
set -euo pipefail
cd "$(dirname "$0")/.."
fuzztime=${FUZZTIME:-10s}
grep -rlE '^func Fuzz[A-Z]' --include='*_test.go' pkg cmd bench | xargs -n1 dirname | sort -u | while read -r dir; do
	for target in $(grep -hoE '^func Fuzz[A-Za-z0-9_]+' "$dir"/*_test.go | cut -d' ' -f2 | sort -u); do
		echo "== $dir $target ($fuzztime)"
		go test "./$dir" -run '^$' -fuzz "^$target\$" -fuzztime "$fuzztime" -fuzzminimizetime 10x
	done
done
