#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# All tests of the tree: static checks, unit and integration tests with the race
# detector, then the end-to-end tests on a real local cluster. It installs the
# Debian packages it needs when they are missing, and closes with one line of counts.
set -euo pipefail
cd "$(dirname "$0")/.."
out=_out/test
mkdir -p "$out"
rm -f "$out"/*.json
gotestsum="go run gotest.tools/gotestsum@v1.13.0"
start=$SECONDS
step() { printf '\n[%4ds] %s\n' $((SECONDS - start)) "$*"; }
failed=()

# Reference results beside the tree are used where they are (see the README).
if [ -z "${SPOTBENCH_DATA:-}" ] && [ -d ../shared/data ]; then
	SPOTBENCH_DATA=$(cd ../shared/data && pwd)
	export SPOTBENCH_DATA
fi

if [ "$(id -u)" = 0 ]; then
	step "programs of the local cluster (Kubernetes, etcd and others; minutes the first time)"
	make --no-print-directory tools
	_out/bin/localcluster build
	# Tests that need an S3 server take the one just built.
	MINIO=$(ls -t "${XDG_CACHE_HOME:-$HOME/.cache}"/spotbench/toolchain/minio-*/minio | head -1)
	export MINIO
fi

step "static checks (golangci-lint)"
make --no-print-directory lint || failed+=("static checks")

step "manifests: rendered, held to schemas and policy (alert rules: a test of pkg/scheduling)"
make --no-print-directory lint-manifests || failed+=("manifests")

step "unit and integration tests, race detector on"
$gotestsum --format pkgname-and-test-fails --jsonfile "$out/unit.json" -- \
	-race -timeout 20m ./pkg/... ./cmd/... ./bench/... || failed+=("unit and integration tests")

step "50,000 pending pods (5,000 are under the race detector)"
$gotestsum --format pkgname-and-test-fails --jsonfile "$out/backlog.json" -- \
	-run FiftyThousand -timeout 15m ./pkg/scheduling || failed+=("50,000 pending pods")

if [ "$(id -u)" = 0 ]; then
	step "end-to-end tests on the real local cluster"
	$gotestsum --format standard-verbose --jsonfile "$out/e2e.json" -- \
		-race -count=1 -timeout 40m -p 1 ./e2e/... || failed+=("end-to-end tests")
else
	step "NOT RUN: end-to-end tests; the local cluster needs root"
fi

# Counts per test, from both runs.
count() { cat "$out"/*.json | grep -c "\"Action\":\"$1\".*\"Test\":" || true; }
if [ ${#failed[@]} = 0 ]; then
	step "done, nothing failed"
else
	step "FAILED: $(printf '%s; ' "${failed[@]}")"
fi
printf '%s passed, %s failed, %s skipped\n' "$(count pass)" "$(count fail)" "$(count skip)"
[ ${#failed[@]} = 0 ]
