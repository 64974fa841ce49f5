-- +goose Up
-- Machines of the cluster and how long they lived: the evidence for the risk of
-- an interruption.
CREATE TABLE instances (
    uid           text PRIMARY KEY COLLATE "C",
    node          text NOT NULL DEFAULT '',
    provider      text NOT NULL DEFAULT '',
    region        text NOT NULL DEFAULT '',
    zone          text NOT NULL DEFAULT '',
    instance_type text NOT NULL DEFAULT '',
    capacity_type text NOT NULL DEFAULT '' CHECK (capacity_type IN ('', 'spot', 'on-demand')),
    started_at    timestamptz,
    seen_at       timestamptz,
    rebalance_at  timestamptz,
    notice_at     timestamptz,
    listed_at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX instances_listed ON instances (listed_at DESC, uid DESC);
-- What the risk is reckoned from: the recent lives of the machines of a pool.
CREATE INDEX instances_pool ON instances (provider, region, zone, instance_type, capacity_type, seen_at);

-- Where each pod of a run was paid for: a run's own columns have the newest only.
ALTER TABLE segments ADD COLUMN region text NOT NULL DEFAULT '', ADD COLUMN zone text NOT NULL DEFAULT '', ADD COLUMN instance_type text NOT NULL DEFAULT '';
UPDATE segments s SET region = r.region, zone = r.zone, instance_type = r.instance_type FROM runs r WHERE r.key = s.run_key AND r.pod_uid = s.pod_uid;
CREATE INDEX segments_time ON segments (started_at);

-- +goose Down
ALTER TABLE segments DROP COLUMN region, DROP COLUMN zone, DROP COLUMN instance_type;
DROP INDEX segments_time;
DROP TABLE instances;
