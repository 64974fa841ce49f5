-- +goose Up
-- What runs are compared by besides their GPUs, and where their prices are from.
ALTER TABLE runs
    ADD COLUMN engine         text NOT NULL DEFAULT '',
    ADD COLUMN engine_version text NOT NULL DEFAULT '',
    ADD COLUMN driver_version text NOT NULL DEFAULT '',
    ADD COLUMN price_source   text NOT NULL DEFAULT '',
    -- The verdict, for filters only: reads derive it anew. It is written with every
    -- change of the run, and by verdict_rules those of older rules are found.
    ADD COLUMN verdict        text NOT NULL DEFAULT 'pending' CHECK (verdict IN ('valid', 'suspect', 'invalid', 'pending')),
    ADD COLUMN verdict_rules  integer NOT NULL DEFAULT 0;
CREATE INDEX runs_verdict ON runs (verdict, listed_at DESC, key DESC);
CREATE INDEX runs_verdict_rules ON runs (verdict_rules, key);
CREATE INDEX runs_gpu_model ON runs (gpu_model, listed_at DESC, key DESC);

-- +goose Down
DROP INDEX runs_gpu_model;
ALTER TABLE runs
    DROP COLUMN engine, DROP COLUMN engine_version, DROP COLUMN driver_version, DROP COLUMN price_source,
    DROP COLUMN verdict, DROP COLUMN verdict_rules;
