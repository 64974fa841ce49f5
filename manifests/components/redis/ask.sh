#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Answers only when Redis does; a replica that has lost its primary does not.
set -eu
export REDISCLI_AUTH="$REDIS_PASSWORD"
[ "$(redis-cli ping)" = PONG ]
if [ "${1:-}" = ready ] && [ "${HOSTNAME##*-}" != 0 ]; then
	redis-cli info replication | grep -q '^master_link_status:up'
fi
