-- +goose Up
-- Runs, what was told about them, and what was imported into them. Text is
-- empty, not null, where nothing is known; times are null.
CREATE TABLE runs (
    key                    text PRIMARY KEY COLLATE "C",
    revision               bigint NOT NULL DEFAULT 1,
    namespace              text NOT NULL DEFAULT '',
    pod_name               text NOT NULL DEFAULT '',
    pod_uid                text NOT NULL DEFAULT '',
    model                  text NOT NULL DEFAULT '',
    benchmark              text NOT NULL DEFAULT '',
    image                  text NOT NULL DEFAULT '',
    image_digest           text NOT NULL DEFAULT '',
    status                 text NOT NULL DEFAULT '' CHECK (status IN ('', 'running', 'interrupted', 'failed', 'succeeded')),
    gpu_model              text NOT NULL DEFAULT '',
    gpu_count              integer NOT NULL DEFAULT 0 CHECK (gpu_count >= 0),
    node                   text NOT NULL DEFAULT '',
    zone                   text NOT NULL DEFAULT '',
    region                 text NOT NULL DEFAULT '',
    instance_type          text NOT NULL DEFAULT '',
    capacity_type          text NOT NULL DEFAULT '' CHECK (capacity_type IN ('', 'spot', 'on-demand')),
    usd_per_hour           double precision NOT NULL DEFAULT 0 CHECK (usd_per_hour >= 0),
    on_demand_usd_per_hour double precision NOT NULL DEFAULT 0 CHECK (on_demand_usd_per_hour >= 0),
    placement_reason       text NOT NULL DEFAULT '',
    started_at             timestamptz,
    finished_at            timestamptz,
    -- The order of lists: the start, or when we first heard of a run without one.
    listed_at              timestamptz NOT NULL DEFAULT now(),
    updated_at             timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX runs_listed ON runs (listed_at DESC, key DESC);
CREATE INDEX runs_model ON runs (model, listed_at DESC, key DESC);

CREATE TABLE segments (
    run_key                text NOT NULL COLLATE "C" REFERENCES runs (key) ON DELETE CASCADE,
    pod_uid                text NOT NULL COLLATE "C",
    node                   text NOT NULL DEFAULT '',
    gpu_model              text NOT NULL DEFAULT '',
    gpu_uuids              text[] NOT NULL DEFAULT '{}',
    capacity_type          text NOT NULL DEFAULT '' CHECK (capacity_type IN ('', 'spot', 'on-demand')),
    usd_per_hour           double precision NOT NULL DEFAULT 0 CHECK (usd_per_hour >= 0),
    on_demand_usd_per_hour double precision NOT NULL DEFAULT 0 CHECK (on_demand_usd_per_hour >= 0),
    started_at             timestamptz,
    ended_at               timestamptz,
    restored_generation    bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (run_key, pod_uid),
    CHECK (ended_at >= started_at)
);

CREATE TABLE interruptions (
    run_key               text NOT NULL COLLATE "C" REFERENCES runs (key) ON DELETE CASCADE,
    notice_id             text NOT NULL COLLATE "C",
    kind                  text NOT NULL DEFAULT '',
    node                  text NOT NULL DEFAULT '',
    pod_uid               text NOT NULL DEFAULT '',
    notice_at             timestamptz,
    tainted_at            timestamptz,
    checkpointed_at       timestamptz,
    evicted_at            timestamptz,
    restored_at           timestamptz,
    running_again_at      timestamptz,
    checkpoint_generation bigint NOT NULL DEFAULT 0,
    checkpoint_bytes      bigint NOT NULL DEFAULT 0,
    work_lost_seconds     double precision CHECK (work_lost_seconds >= 0),
    outcome               text NOT NULL DEFAULT '',
    listed_at             timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_key, notice_id)
);
CREATE INDEX interruptions_listed ON interruptions (listed_at DESC, run_key DESC, notice_id DESC);
CREATE INDEX interruptions_node ON interruptions (node, listed_at DESC);

CREATE TABLE telemetry (
    run_key text NOT NULL COLLATE "C" REFERENCES runs (key) ON DELETE CASCADE,
    pod_uid text NOT NULL COLLATE "C",
    from_at timestamptz,
    to_at   timestamptz,
    gpus    jsonb NOT NULL,
    PRIMARY KEY (run_key, pod_uid)
);

CREATE TABLE imports (
    id          uuid PRIMARY KEY,
    run_key     text NOT NULL COLLATE "C" REFERENCES runs (key) ON DELETE CASCADE,
    file        text NOT NULL,
    format      text NOT NULL,
    sha256      text NOT NULL,
    bytes       bigint NOT NULL,
    imported_at timestamptz NOT NULL,
    -- Another import of the same file of the run took its place.
    superseded  boolean NOT NULL DEFAULT false,
    UNIQUE (run_key, sha256)
);
CREATE INDEX imports_file ON imports (run_key, file);

CREATE TABLE results (
    id          uuid PRIMARY KEY,
    import_id   uuid NOT NULL REFERENCES imports (id) ON DELETE CASCADE,
    position    integer NOT NULL,
    run_key     text NOT NULL COLLATE "C" REFERENCES runs (key) ON DELETE CASCADE,
    model       text NOT NULL,
    concurrency bigint,
    imported_at timestamptz NOT NULL,
    body        jsonb NOT NULL,
    UNIQUE (import_id, position)
);
CREATE INDEX results_listed ON results (imported_at DESC, id DESC);
CREATE INDEX results_run ON results (run_key, concurrency);
CREATE INDEX results_model ON results (model, imported_at DESC, id DESC);

-- +goose Down
DROP TABLE results;
DROP TABLE imports;
DROP TABLE telemetry;
DROP TABLE interruptions;
DROP TABLE segments;
DROP TABLE runs;
