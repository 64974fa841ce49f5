#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes the database where there is none, runs what is in /docker-entrypoint-initdb.d
# on it, and becomes the server.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
	umask 077
	mkdir -p "$PGDATA"
	printf '%s\n' "$POSTGRES_PASSWORD" >/tmp/password
	initdb --pgdata "$PGDATA" --username postgres --encoding UTF8 --auth-local trust --auth-host scram-sha-256 --pwfile /tmp/password
	rm /tmp/password
	echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
	echo "listen_addresses = '*'" >>"$PGDATA/postgresql.conf"
	pg_ctl --pgdata "$PGDATA" --options "-c listen_addresses=''" --wait start
	for script in /docker-entrypoint-initdb.d/*.sh; do
		"$script"
	done
	pg_ctl --pgdata "$PGDATA" --mode fast --wait stop
fi
exec "$@"
