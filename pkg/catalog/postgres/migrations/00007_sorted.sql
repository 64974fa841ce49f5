-- +goose Up
-- Results by the figures that are asked for over all models; by the others, those of a
-- model or a run are read and sorted.
CREATE INDEX results_by_requests ON results (requests_per_second DESC, id DESC) WHERE NOT superseded AND requests_per_second IS NOT NULL;
CREATE INDEX results_by_output ON results (output_tokens_per_second DESC, id DESC) WHERE NOT superseded AND output_tokens_per_second IS NOT NULL;
CREATE INDEX results_by_ttft ON results (ttft_p99_ms DESC, id DESC) WHERE NOT superseded AND ttft_p99_ms IS NOT NULL;
CREATE INDEX results_by_tpot ON results (tpot_p99_ms DESC, id DESC) WHERE NOT superseded AND tpot_p99_ms IS NOT NULL;

-- +goose Down
DROP INDEX results_by_requests, results_by_output, results_by_ttft, results_by_tpot;
