#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Checks the catalog's pages with axe-core in Chromium. Needs chromium and npm.
set -eu
cd "$(dirname "$0")/.."
mkdir -p _out/axe
npm install --prefix _out/axe --no-audit --no-fund --no-save axe-core@4.14.1
SPOTBENCH_AXE="$PWD/_out/axe/node_modules/axe-core/axe.min.js" go test ./pkg/catalog/web -run Accessibility -count=1 "$@"
