#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Run once, when the primary's database is made: the catalog's owner, and who may copy.
set -eu
psql -v ON_ERROR_STOP=1 -U postgres -d postgres -v owner="$CATALOG_PASSWORD" -v copy="$REPLICATION_PASSWORD" <<'SQL'
CREATE ROLE catalog LOGIN PASSWORD :'owner';
GRANT pg_read_all_stats TO catalog; -- to see that a replica of an idle primary is level with it
CREATE DATABASE catalog OWNER catalog;
CREATE ROLE replication LOGIN REPLICATION PASSWORD :'copy';
SQL
echo "host replication replication all scram-sha-256" >>"$PGDATA/pg_hba.conf"
