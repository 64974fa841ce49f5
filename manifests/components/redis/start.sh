#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Redis of this pod: the first of the set is the primary, the others follow it.
set -eu
umask 077
{
	echo "bind * -::*"
	echo "port 6379"
	echo "dir /data"
	# Of 2 GiB, the rest is for buffers of replicas and clients.
	echo "maxmemory 1500mb"
	echo "maxmemory-policy allkeys-lru"
	echo 'save ""'
	echo "requirepass $REDIS_PASSWORD"
	echo "masterauth $REDIS_PASSWORD"
	if [ "${HOSTNAME##*-}" != 0 ]; then
		echo "replicaof redis-0.redis-nodes.data-storage.svc 6379"
	fi
} >/data/redis.conf
exec redis-server /data/redis.conf
