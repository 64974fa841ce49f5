-- +goose Up
-- The namespaces whose runs a key may see and write; null is all.
ALTER TABLE api_keys ADD COLUMN namespaces text[] CHECK (namespaces IS NULL OR cardinality(namespaces) > 0);
-- What the caller named the last rotation by, so that one that is sent again is not another.
ALTER TABLE api_keys ADD COLUMN rotation text NOT NULL DEFAULT '';

-- +goose Down
-- A key for some namespaces must not become one for all.
DELETE FROM api_keys WHERE namespaces IS NOT NULL;
ALTER TABLE api_keys DROP COLUMN namespaces, DROP COLUMN rotation;
