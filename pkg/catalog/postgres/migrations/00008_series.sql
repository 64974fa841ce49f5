-- +goose Up
-- How each GPU went over time, by its UUID. It is apart from the summaries, which every
-- list of runs reads.
ALTER TABLE telemetry ADD COLUMN series jsonb;

-- +goose Down
ALTER TABLE telemetry DROP COLUMN series;
