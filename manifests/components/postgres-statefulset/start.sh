#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# PostgreSQL of this pod: the first of the set is the primary, the others begin with a
# copy of it and follow it.
set -eu
export PGDATA=/var/lib/postgresql/data/pg
primary=${CATALOG_PRIMARY:-catalog-db-0}
host="$primary.catalog-db.data-storage.svc"
if [ "$HOSTNAME" != "$primary" ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
	until PGPASSWORD=$REPLICATION_PASSWORD pg_basebackup -h "$host" -U replication -D "$PGDATA.part" -X stream -R -C -S "$(echo "$HOSTNAME" | tr - _)" -d "application_name=$HOSTNAME"; do
		rm -rf "$PGDATA.part"
		# A slot that an earlier attempt made is taken again.
		PGPASSWORD=$REPLICATION_PASSWORD psql -h "$host" -U replication -d "replication=true dbname=postgres" \
			-c "DROP_REPLICATION_SLOT $(echo "$HOSTNAME" | tr - _)" || true
		sleep 2
	done
	mv "$PGDATA.part" "$PGDATA"
fi
exec docker-entrypoint.sh postgres -c hot_standby=on -c wal_level=replica -c max_wal_senders=10 -c max_connections=200 \
	-c shared_buffers="${SHARED_BUFFERS:-4GB}" -c max_slot_wal_keep_size=50GB -c password_encryption=scram-sha-256
