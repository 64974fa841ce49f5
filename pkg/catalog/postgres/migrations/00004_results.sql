-- +goose Up
-- What lists of results are filtered by is kept with each result, so that one index
-- answers one list: a join would read all results of a model to find those of a GPU.
ALTER TABLE results
    ADD COLUMN format     text NOT NULL DEFAULT '',
    ADD COLUMN gpu_model  text NOT NULL DEFAULT '',
    ADD COLUMN verdict    text NOT NULL DEFAULT 'pending' CHECK (verdict IN ('valid', 'suspect', 'invalid', 'pending')),
    ADD COLUMN superseded boolean NOT NULL DEFAULT false,
    -- The common figures for questions in SQL, with their units; null is not known.
    ADD COLUMN requests                 bigint GENERATED ALWAYS AS (CASE WHEN body->'unknown' ? 'requests' THEN NULL ELSE (body->>'requests')::bigint END) STORED,
    ADD COLUMN completed                bigint GENERATED ALWAYS AS (CASE WHEN body->'unknown' ? 'completed' THEN NULL ELSE (body->>'completed')::bigint END) STORED,
    ADD COLUMN duration_seconds         double precision GENERATED ALWAYS AS (CASE WHEN body->'unknown' ? 'durationSeconds' THEN NULL ELSE (body->>'durationSeconds')::double precision END) STORED,
    ADD COLUMN output_tokens            bigint GENERATED ALWAYS AS (CASE WHEN body->'unknown' ? 'outputTokens' THEN NULL ELSE (body->>'outputTokens')::bigint END) STORED,
    ADD COLUMN requests_per_second      double precision GENERATED ALWAYS AS ((body->>'requestThroughput')::double precision) STORED,
    ADD COLUMN output_tokens_per_second double precision GENERATED ALWAYS AS ((body->>'outputThroughput')::double precision) STORED,
    ADD COLUMN total_tokens_per_second  double precision GENERATED ALWAYS AS ((body->>'totalTokenThroughput')::double precision) STORED,
    ADD COLUMN ttft_median_ms           double precision GENERATED ALWAYS AS ((body->'ttft'->>'medianMs')::double precision) STORED,
    ADD COLUMN ttft_p99_ms              double precision GENERATED ALWAYS AS ((body->'ttft'->>'p99Ms')::double precision) STORED,
    ADD COLUMN tpot_median_ms           double precision GENERATED ALWAYS AS ((body->'tpot'->>'medianMs')::double precision) STORED,
    ADD COLUMN tpot_p99_ms              double precision GENERATED ALWAYS AS ((body->'tpot'->>'p99Ms')::double precision) STORED,
    ADD COLUMN e2el_median_ms           double precision GENERATED ALWAYS AS ((body->'e2el'->>'medianMs')::double precision) STORED,
    ADD COLUMN e2el_p99_ms              double precision GENERATED ALWAYS AS ((body->'e2el'->>'p99Ms')::double precision) STORED;
UPDATE results r SET format = i.format, superseded = i.superseded, gpu_model = x.gpu_model, verdict = x.verdict
    FROM imports i, runs x WHERE i.id = r.import_id AND x.key = r.run_key;

DROP INDEX results_listed;
DROP INDEX results_run;
DROP INDEX results_model;
CREATE INDEX results_listed ON results (imported_at DESC, id DESC) WHERE NOT superseded;
CREATE INDEX results_run ON results (run_key, imported_at DESC, id DESC) WHERE NOT superseded;
CREATE INDEX results_model ON results (model, imported_at DESC, id DESC) WHERE NOT superseded;
CREATE INDEX results_model_gpu ON results (model, gpu_model, imported_at DESC, id DESC) WHERE NOT superseded;
CREATE INDEX results_gpu ON results (gpu_model, imported_at DESC, id DESC) WHERE NOT superseded;
CREATE INDEX results_format ON results (format, imported_at DESC, id DESC) WHERE NOT superseded;
CREATE INDEX results_verdict ON results (verdict, imported_at DESC, id DESC) WHERE NOT superseded;
CREATE INDEX results_concurrency ON results (concurrency, imported_at DESC, id DESC) WHERE NOT superseded;
-- To find all of a run, replaced ones too, when the run itself changes or goes.
CREATE INDEX results_of_run ON results (run_key) WHERE superseded;

-- The number of a run's results: the list of models adds these up, not the results.
ALTER TABLE runs ADD COLUMN results integer NOT NULL DEFAULT 0;
UPDATE runs SET results = n.count FROM (SELECT run_key, count(*) FROM results WHERE NOT superseded GROUP BY run_key) n WHERE n.run_key = runs.key;
CREATE INDEX runs_models ON runs (model, gpu_model) INCLUDE (results, started_at);
CREATE INDEX runs_measured ON runs (listed_at DESC, key DESC) WHERE results > 0;
-- A list of runs by any of its filters, in its order.
CREATE INDEX runs_namespace ON runs (namespace, listed_at DESC, key DESC);
CREATE INDEX runs_benchmark ON runs (benchmark, listed_at DESC, key DESC);
CREATE INDEX runs_status ON runs (status, listed_at DESC, key DESC);
CREATE INDEX runs_node ON runs (node, listed_at DESC, key DESC);
CREATE INDEX runs_region ON runs (region, listed_at DESC, key DESC);
CREATE INDEX runs_instance_type ON runs (instance_type, listed_at DESC, key DESC);
CREATE INDEX runs_capacity_type ON runs (capacity_type, listed_at DESC, key DESC);
CREATE INDEX runs_engine ON runs (engine, listed_at DESC, key DESC);
CREATE INDEX runs_engine_version ON runs (engine_version, listed_at DESC, key DESC);
CREATE INDEX runs_driver_version ON runs (driver_version, listed_at DESC, key DESC);
CREATE INDEX interruptions_kind ON interruptions (kind, listed_at DESC, run_key DESC, notice_id DESC);

-- The files as they came, compressed by the catalog itself.
CREATE TABLE files (
    import_id uuid PRIMARY KEY REFERENCES imports (id) ON DELETE CASCADE,
    zstd      bytea NOT NULL
);
ALTER TABLE files ALTER COLUMN zstd SET STORAGE EXTERNAL;

-- +goose Down
DROP TABLE files;
DROP INDEX interruptions_kind, runs_measured, runs_models, runs_namespace, runs_benchmark, runs_status, runs_node, runs_region, runs_instance_type, runs_capacity_type, runs_engine, runs_engine_version, runs_driver_version;
ALTER TABLE runs DROP COLUMN results;
DROP INDEX results_of_run, results_concurrency, results_verdict, results_format, results_gpu, results_model_gpu, results_model, results_run, results_listed;
CREATE INDEX results_listed ON results (imported_at DESC, id DESC);
CREATE INDEX results_run ON results (run_key, concurrency);
CREATE INDEX results_model ON results (model, imported_at DESC, id DESC);
ALTER TABLE results
    DROP COLUMN format, DROP COLUMN gpu_model, DROP COLUMN verdict, DROP COLUMN superseded,
    DROP COLUMN requests, DROP COLUMN completed, DROP COLUMN duration_seconds, DROP COLUMN output_tokens, DROP COLUMN requests_per_second,
    DROP COLUMN output_tokens_per_second, DROP COLUMN total_tokens_per_second, DROP COLUMN ttft_median_ms, DROP COLUMN ttft_p99_ms,
    DROP COLUMN tpot_median_ms, DROP COLUMN tpot_p99_ms, DROP COLUMN e2el_median_ms, DROP COLUMN e2el_p99_ms;
