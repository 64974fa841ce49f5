-- +goose Up
-- Keys of people and tools. A key is an id and a secret; only the secret's hash is here.
CREATE TABLE api_keys (
    id             text PRIMARY KEY COLLATE "C",
    role           text NOT NULL CHECK (role IN ('read', 'write', 'admin')),
    hash           bytea NOT NULL,
    -- After a rotation the old secret works on until then.
    previous_hash  bytea,
    previous_until timestamptz,
    created_at     timestamptz NOT NULL DEFAULT now(),
    created_by     text NOT NULL DEFAULT '',
    rotated_at     timestamptz,
    expires_at     timestamptz NOT NULL,
    revoked_at     timestamptz,
    last_used_at   timestamptz
);

-- Who wrote what. A line is in the same transaction as the write, so that there is
-- neither without the other. Nothing here refers to a run: the log outlives runs.
CREATE TABLE audit (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at        timestamptz NOT NULL DEFAULT now(),
    caller    text NOT NULL,
    operation text NOT NULL,
    target    text NOT NULL DEFAULT '',
    remote    text NOT NULL DEFAULT ''
);
CREATE INDEX audit_at ON audit (at DESC, id DESC);
CREATE INDEX audit_caller ON audit (caller, at DESC, id DESC);

-- +goose Down
DROP TABLE audit;
DROP TABLE api_keys;
