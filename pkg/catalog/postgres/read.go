// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// queryer is a pool or a transaction.
type queryer interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// row is one row of an answer.
type row interface{ Scan(dest ...any) error }

func collect[T any](ctx context.Context, q queryer, scan func(row) (T, error), sql string, args ...any) ([]T, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(r pgx.CollectableRow) (T, error) { return scan(r) })
}

// queue adds a query to those that are sent together, in one round trip. What it
// finds is there once the batch has been sent.
func queue[T any](b *pgx.Batch, scan func(row) (T, error), sql string, args ...any) *[]T {
	found := new([]T)
	b.Queue(sql, args...).Query(func(rows pgx.Rows) (err error) {
		*found, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (T, error) { return scan(r) })
		return err
	})
	return found
}

const selectRun = `SELECT key, revision, namespace, pod_name, pod_uid, model, benchmark, image, image_digest, status, gpu_model, gpu_count,
	node, zone, region, instance_type, capacity_type, usd_per_hour, on_demand_usd_per_hour, placement_reason, started_at, finished_at,
	engine, engine_version, driver_version, price_source FROM runs`

func scanRun(from row) (catalog.Run, int64, error) {
	var r catalog.Run
	var revision int64
	var started, finished *time.Time
	err := from.Scan(&r.Key, &revision, &r.Namespace, &r.PodName, &r.PodUID, &r.Model, &r.Benchmark, &r.Image, &r.ImageDigest, &r.Status, &r.GPUModel, &r.GPUCount,
		&r.Node, &r.Zone, &r.Region, &r.InstanceType, &r.CapacityType, &r.USDPerHour, &r.OnDemandUSDPerHour, &r.PlacementReason, &started, &finished,
		&r.Engine, &r.EngineVersion, &r.DriverVersion, &r.PriceSource)
	r.StartedAt, r.FinishedAt = moment(started), moment(finished)
	return r, revision, err
}

const selectSegments = `SELECT run_key, pod_uid, node, gpu_model, gpu_uuids, region, zone, instance_type, capacity_type, usd_per_hour, on_demand_usd_per_hour, started_at, ended_at, restored_generation FROM segments`

// of is something with the key of its run.
type of[T any] struct {
	run  string
	part T
}

func scanSegmentOf(from row) (of[catalog.Segment], error) {
	var o of[catalog.Segment]
	var started, ended *time.Time
	g := &o.part
	err := from.Scan(&o.run, &g.PodUID, &g.Node, &g.GPUModel, &g.GPUUUIDs, &g.Region, &g.Zone, &g.InstanceType, &g.CapacityType, &g.USDPerHour, &g.OnDemandUSDPerHour, &started, &ended, &g.RestoredGeneration)
	g.StartedAt, g.EndedAt = moment(started), moment(ended)
	return o, err
}

const selectInterruptions = `SELECT run_key, notice_id, kind, node, pod_uid, notice_at, tainted_at, checkpointed_at, evicted_at, restored_at, running_again_at,
	checkpoint_generation, checkpoint_bytes, work_lost_seconds, outcome FROM interruptions`

func scanInterruption(from row) (catalog.Interruption, error) {
	var i catalog.Interruption
	var notice, tainted, checkpointed, evicted, restored, again *time.Time
	err := from.Scan(&i.RunKey, &i.NoticeID, &i.Kind, &i.Node, &i.PodUID, &notice, &tainted, &checkpointed, &evicted, &restored, &again,
		&i.CheckpointGeneration, &i.CheckpointBytes, &i.WorkLostSeconds, &i.Outcome)
	i.NoticeAt, i.TaintedAt, i.CheckpointedAt, i.EvictedAt = moment(notice), moment(tainted), moment(checkpointed), moment(evicted)
	i.RestoredAt, i.RunningAgainAt = moment(restored), moment(again)
	return i, err
}

const selectTelemetry = `SELECT run_key, pod_uid, from_at, to_at, gpus FROM telemetry`

func scanTelemetryOf(from row) (of[catalog.Telemetry], error) {
	var o of[catalog.Telemetry]
	var first, last *time.Time
	var body []byte
	if err := from.Scan(&o.run, &o.part.PodUID, &first, &last, &body); err != nil {
		return o, err
	}
	o.part.From, o.part.To = moment(first), moment(last)
	return o, json.Unmarshal(body, &o.part.GPUs)
}

const selectResults = `SELECT body, id::text FROM results`

// current leaves out the results whose file came again with other content.
const current = "NOT superseded"

// listedResult is a result as it is stored.
type listedResult struct {
	body json.RawMessage
	id   string
}

func scanListed(from row) (r listedResult, err error) {
	return r, from.Scan((*[]byte)(&r.body), &r.id)
}

func scanResult(from row) (r catalog.Result, err error) {
	listed, err := scanListed(from)
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(listed.body, &r)
}

const selectImports = `SELECT i.id::text, i.run_key, i.file, i.format, i.sha256, i.bytes, i.imported_at, i.superseded,
	ARRAY(SELECT r.id::text FROM results r WHERE r.import_id = i.id ORDER BY r.position) FROM imports i`

func scanImport(from row) (catalog.Import, error) {
	var i catalog.Import
	err := from.Scan(&i.ID, &i.RunKey, &i.File, &i.Format, &i.SHA256, &i.Bytes, &i.ImportedAt, &i.Superseded, &i.Results)
	i.ImportedAt = i.ImportedAt.UTC()
	return i, err
}

// partsQuery is everything about some runs, once its batch has been sent.
type partsQuery struct {
	segments      *[]of[catalog.Segment]
	interruptions *[]catalog.Interruption
	telemetry     *[]of[catalog.Telemetry]
	results       *[]catalog.Result
}

// queueParts asks for everything about the runs.
func queueParts(b *pgx.Batch, keys []string) partsQuery {
	return partsQuery{
		segments:      queue(b, scanSegmentOf, selectSegments+" WHERE run_key = ANY($1) ORDER BY started_at, pod_uid", keys),
		interruptions: queue(b, scanInterruption, selectInterruptions+" WHERE run_key = ANY($1) ORDER BY listed_at, notice_id", keys),
		telemetry:     queue(b, scanTelemetryOf, selectTelemetry+" WHERE run_key = ANY($1) ORDER BY from_at, pod_uid", keys),
		results:       queue(b, scanResult, selectResults+" WHERE run_key = ANY($1) AND "+current+" ORDER BY concurrency, imported_at, id", keys),
	}
}

// of gives each run its parts, in the order of the runs.
func (q partsQuery) of(runs []catalog.Run) []catalog.Parts {
	at := make(map[string]*catalog.Parts, len(runs))
	out := make([]catalog.Parts, len(runs))
	for n, r := range runs {
		out[n].Run, at[r.Key] = r, &out[n]
	}
	for _, s := range *q.segments {
		at[s.run].Segments = append(at[s.run].Segments, s.part)
	}
	for _, i := range *q.interruptions {
		at[i.RunKey].Interruptions = append(at[i.RunKey].Interruptions, i)
	}
	for _, t := range *q.telemetry {
		at[t.run].Telemetry = append(at[t.run].Telemetry, t.part)
	}
	for _, r := range *q.results {
		at[r.RunKey].Results = append(at[r.RunKey].Results, r)
	}
	return out
}

// parts reads everything about the runs, in their order.
func parts(ctx context.Context, q queryer, runs []catalog.Run) ([]catalog.Parts, error) {
	if len(runs) == 0 {
		return nil, nil
	}
	keys := make([]string, len(runs))
	for n, r := range runs {
		keys[n] = r.Key
	}
	var b pgx.Batch
	asked := queueParts(&b, keys)
	if err := q.SendBatch(ctx, &b).Close(); err != nil {
		return nil, err
	}
	return asked.of(runs), nil
}

// ask collects from a replica or the primary. scan must keep nothing of its own: it
// may be called for the rows of two attempts.
func ask[T any](ctx context.Context, s *Store, scan func(row) (T, error), sql string, args ...any) (found []T, err error) {
	err = s.read(ctx, func(ctx context.Context, pool *pgxpool.Pool) error {
		found, err = collect(ctx, pool, scan, sql, args...)
		return err
	})
	return found, err
}

// snapshot runs do on one state of the database, so that a run's parts belong together.
func (s *Store) snapshot(ctx context.Context, do func(context.Context, pgx.Tx) error) error {
	return s.read(ctx, func(ctx context.Context, pool *pgxpool.Pool) error {
		return pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error { return do(ctx, tx) })
	})
}

// GetRun is a run with all its parts.
func (s *Store) GetRun(ctx context.Context, key string) (catalog.Detail, error) {
	d, _, err := s.GetRunRevision(ctx, key)
	return d, err
}

// GetRunRevision is a run with all its parts, and its revision: a number that
// grows with each change of any of them.
func (s *Store) GetRunRevision(ctx context.Context, key string) (detail catalog.Detail, revision int64, err error) {
	if !catalog.Seen(ctx, key) {
		return detail, 0, fmt.Errorf("run %q: %w", key, catalog.ErrNotFound)
	}
	var asked wholeRun
	err = s.read(ctx, func(ctx context.Context, pool *pgxpool.Pool) error {
		// One round trip, and one state of the database: the transaction is part of it.
		var b pgx.Batch
		b.Queue("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
		asked = queueRun(&b, key, "")
		b.Queue("COMMIT")
		return pool.SendBatch(ctx, &b).Close()
	})
	if err != nil {
		return detail, 0, explain(err)
	}
	run, err := asked.run(key)
	if err != nil {
		return detail, 0, err
	}
	return catalog.Describe(run.Parts, s.now()), run.revision, nil
}

// stampedRun is a run's own row with its revision.
type stampedRun struct {
	catalog.Run
	revision int64
}

func scanStamped(from row) (r stampedRun, err error) {
	r.Run, r.revision, err = scanRun(from)
	return r, err
}

// where builds a condition out of the parts that apply.
type where struct {
	conditions []string
	args       []any
	// limited has the statement planned for its values.
	limited bool
}

func (w *where) equal(column, value string) {
	if value != "" {
		w.args = append(w.args, value)
		w.conditions = append(w.conditions, fmt.Sprintf("%s = $%d", column, len(w.args)))
	}
}

// compare adds "LEFT value", where left ends with the operator.
func (w *where) compare(left string, value any) {
	w.args = append(w.args, value)
	w.conditions = append(w.conditions, fmt.Sprintf("%s $%d", left, len(w.args)))
}

// between bounds a time: at or after since, and before.
func (w *where) between(column string, since, before time.Time) {
	if !since.IsZero() {
		w.args = append(w.args, since)
		w.conditions = append(w.conditions, fmt.Sprintf("%s >= $%d", column, len(w.args)))
	}
	if !before.IsZero() {
		w.args = append(w.args, before)
		w.conditions = append(w.conditions, fmt.Sprintf("%s < $%d", column, len(w.args)))
	}
}

// after continues a list sorted by the columns, all in one direction, behind a row.
func (w *where) after(columns string, oldestFirst bool, values ...any) {
	marks := make([]string, len(values))
	for n, v := range values {
		w.args = append(w.args, v)
		marks[n] = fmt.Sprintf("$%d", len(w.args))
	}
	behind := "<"
	if oldestFirst {
		behind = ">"
	}
	w.conditions = append(w.conditions, fmt.Sprintf("(%s) %s (%s)", columns, behind, strings.Join(marks, ", ")))
}

// planned are the arguments for a statement that is planned each time it is sent.
// A plan for any values would be wrong for rare ones where a column has few: that
// no run has a region is known from the value alone.
func (w *where) planned() []any { return append([]any{pgx.QueryExecModeCacheDescribe}, w.args...) }

// all is every condition as a WHERE clause.
func (w *where) all() string {
	if len(w.conditions) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(w.conditions, " AND ")
}

// sql is the condition with the page's order and bound: one row more than the
// page, which tells whether there is another.
func (w *where) sql(columns string, oldestFirst bool, limit int) string {
	direction := " DESC"
	if oldestFirst {
		direction = " ASC"
	}
	return w.all() + " ORDER BY " + strings.ReplaceAll(columns, ",", direction+",") + direction + fmt.Sprintf(" LIMIT %d", limit+1)
}

// position is where a page ended.
type position struct {
	At   time.Time `json:"t"`
	Keys []string  `json:"k"`
	// OldestFirst is the order of the list that the page was of.
	OldestFirst bool `json:"o,omitempty"`
	// By is what it was sorted by, if not by its time, and Value what the last row has.
	By    string `json:"b,omitempty"`
	Value string `json:"v,omitempty"`
}

func (p position) token() string {
	b, err := json.Marshal(p)
	if err != nil {
		return "" // a time in a year that JSON has not; the list ends here
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func parseToken(token string, keys int, oldestFirst bool) (position, error) {
	var p position
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err == nil {
		err = json.Unmarshal(b, &p)
	}
	if err != nil || len(p.Keys) != keys || p.OldestFirst != oldestFirst {
		return position{}, unknownToken(token)
	}
	return p, nil
}

func unknownToken(token string) error {
	return &catalog.InvalidField{Name: "pageToken", Problem: fmt.Sprintf("%q is not one this list gave for this sort and order; leave it out for the first page", token)}
}

type listedRun struct {
	catalog.Run
	place
}

// whereRuns is what a query asks of runs.
func whereRuns(ctx context.Context, query catalog.RunQuery) where {
	var w where
	w.within(ctx, "key")
	w.equal("model", query.Model)
	w.equal("benchmark", query.Benchmark)
	w.equal("gpu_model", query.GPUModel)
	w.equal("namespace", query.Namespace)
	w.equal("status", string(query.Status))
	w.equal("node", query.Node)
	w.equal("region", query.Region)
	w.equal("instance_type", query.InstanceType)
	w.equal("capacity_type", query.CapacityType)
	w.equal("engine", query.Engine)
	w.equal("engine_version", query.EngineVersion)
	w.equal("driver_version", query.DriverVersion)
	w.equal("verdict", string(query.Verdict))
	w.between("started_at", query.Since, query.Before)
	// listed_at is the same wherever there is a start, and has the index.
	w.between("listed_at", query.Since, query.Before)
	return w
}

// ListRuns is one page of runs, the newest first unless asked otherwise.
func (s *Store) ListRuns(ctx context.Context, query catalog.RunQuery) (catalog.Page[catalog.Summary], error) {
	page := catalog.Page[catalog.Summary]{Items: []catalog.Summary{}}
	limit := catalog.PageSize(query.Limit)
	o, err := orderOf(query.Sort, "startedAt", "listed_at", "key", query.OldestFirst, sortsOfRuns)
	if err != nil {
		return page, err
	}
	w := whereRuns(ctx, query)
	if err := w.sortBy(o, query.PageToken, asText, 1); err != nil {
		return page, err
	}
	err = s.snapshot(ctx, func(ctx context.Context, tx pgx.Tx) error {
		page.Items, page.NextPageToken = []catalog.Summary{}, "" // of an attempt before this one
		scan := func(from row) (listedRun, error) {
			var r listedRun
			var err error
			r.Run, _, err = scanRun(withMore{from, o.into(&r.place)})
			return r, err
		}
		rows, err := collect(ctx, tx, scan, strings.Replace(selectRun, " FROM runs", ", "+o.value()+" FROM runs", 1)+w.sql(o.columns(), o.ascending, limit), w.planned()...)
		if err != nil {
			return err
		}
		if len(rows) > limit {
			rows = rows[:limit]
			page.NextPageToken = o.token(rows[limit-1].place, rows[limit-1].Key)
		}
		runs := make([]catalog.Run, len(rows))
		for n, r := range rows {
			runs[n] = r.Run
		}
		all, err := parts(ctx, tx, runs)
		if err != nil {
			return err
		}
		for _, p := range all {
			page.Items = append(page.Items, catalog.Describe(p, s.now()).Summary)
		}
		return nil
	})
	return page, explain(err)
}

// withMore scans one column more than the row's own reader asks for.
type withMore struct {
	row
	more any
}

func (w withMore) Scan(dest ...any) error { return w.row.Scan(append(dest, w.more)...) }

// whereResults is what a query asks of results, from the page it asks for on.
func whereResults(ctx context.Context, query catalog.ResultQuery, o ordering) (where, error) {
	w := where{conditions: []string{current}}
	w.within(ctx, "run_key")
	w.equal("run_key", query.RunKey)
	w.equal("model", query.Model)
	w.equal("format", query.Format)
	w.equal("gpu_model", query.GPUModel)
	w.equal("verdict", string(query.Verdict))
	if query.Concurrency != nil {
		w.compare("concurrency =", *query.Concurrency)
	}
	w.between("imported_at", query.Since, query.Before)
	if !o.indexed && query.Model == "" && query.RunKey == "" {
		return w, &catalog.InvalidField{Name: "sort", Problem: o.by + " needs one of the filters model and run: without it every result there is would be read"}
	}
	w.limited = w.limited || o.by != ""
	return w, w.sortBy(o, query.PageToken, asUUID, 1)
}

// asUUID is the name of a result.
func asUUID(keys []string) ([]any, error) {
	id, err := uuid.Parse(keys[0])
	return []any{id}, err
}

// ListResultsJSON is one page of results as they are stored: the JSON of
// catalog.Result. A list is passed on far more often than it is looked into.
func (s *Store) ListResultsJSON(ctx context.Context, query catalog.ResultQuery) (catalog.Page[json.RawMessage], error) {
	page := catalog.Page[json.RawMessage]{Items: []json.RawMessage{}}
	limit := catalog.PageSize(query.Limit)
	o, err := orderOf(query.Sort, "importedAt", "imported_at", "id", query.OldestFirst, sortsOfResults)
	if err != nil {
		return page, err
	}
	w, err := whereResults(ctx, query, o)
	if err != nil {
		return page, err
	}
	type sorted struct {
		listedResult
		place
	}
	scan := func(from row) (r sorted, err error) {
		r.listedResult, err = scanListed(withMore{from, o.into(&r.place)})
		return r, err
	}
	rows, err := ask(ctx, s, scan, strings.Replace(selectResults, " FROM results", ", "+o.value()+" FROM results", 1)+w.sql(o.columns(), o.ascending, limit), w.given()...)
	if err != nil {
		return page, explain(err)
	}
	if len(rows) > limit {
		rows = rows[:limit]
		page.NextPageToken = o.token(rows[limit-1].place, rows[limit-1].id)
	}
	for _, r := range rows {
		page.Items = append(page.Items, r.body)
	}
	return page, nil
}

// ListResults is one page of results, those of the newest import first.
func (s *Store) ListResults(ctx context.Context, query catalog.ResultQuery) (catalog.Page[catalog.Result], error) {
	stored, err := s.ListResultsJSON(ctx, query)
	page := catalog.Page[catalog.Result]{Items: make([]catalog.Result, len(stored.Items)), NextPageToken: stored.NextPageToken}
	for n, body := range stored.Items {
		err = errors.Join(err, json.Unmarshal(body, &page.Items[n]))
	}
	return page, err
}

// ResultJSON is one result as it is stored, also if its file has been replaced.
func (s *Store) ResultJSON(ctx context.Context, id string) (json.RawMessage, error) {
	name, err := uuid.Parse(id)
	if err != nil {
		return nil, fmt.Errorf("result %q: %w", id, catalog.ErrNotFound)
	}
	var w where
	w.compare("id =", name)
	w.within(ctx, "run_key")
	rows, err := ask(ctx, s, scanListed, selectResults+w.all(), w.args...)
	if err != nil {
		return nil, explain(err)
	}
	for _, r := range rows {
		return r.body, nil
	}
	return nil, fmt.Errorf("result %q: %w", id, catalog.ErrNotFound)
}

// ListInterruptions is one page of interruptions, the newest first.
func (s *Store) ListInterruptions(ctx context.Context, query catalog.InterruptionQuery) (catalog.Page[catalog.Interruption], error) {
	page := catalog.Page[catalog.Interruption]{Items: []catalog.Interruption{}}
	limit := catalog.PageSize(query.Limit)
	var w where
	w.within(ctx, "run_key")
	w.equal("run_key", query.RunKey)
	w.equal("node", query.Node)
	w.equal("kind", query.Kind)
	w.between("notice_at", query.Since, query.Before)
	w.between("listed_at", query.Since, query.Before) // the same where there is a notice, and has the index
	o, err := orderOf(query.Sort, "noticeAt", "listed_at", "run_key, notice_id", query.OldestFirst, sortsOfInterruptions)
	if err != nil {
		return page, err
	}
	if err := w.sortBy(o, query.PageToken, asText, 2); err != nil {
		return page, err
	}
	var places []place
	scan := func(from row) (catalog.Interruption, error) {
		var p place
		i, err := scanInterruption(withMore{from, o.into(&p)})
		places = append(places, p)
		return i, err
	}
	rows, err := collect(ctx, s.pool, scan, strings.Replace(selectInterruptions, " FROM interruptions", ", "+o.value()+" FROM interruptions", 1)+
		w.sql(o.columns(), o.ascending, limit), w.given()...)
	if err != nil {
		return page, explain(err)
	}
	if len(rows) > limit {
		rows = rows[:limit]
		page.NextPageToken = o.token(places[limit-1], rows[limit-1].RunKey, rows[limit-1].NoticeID)
	}
	page.Items = append(page.Items, rows...)
	return page, nil
}

// ListModels is every model that has runs, by name.
func (s *Store) ListModels(ctx context.Context) ([]catalog.Model, error) {
	scan := func(from row) (catalog.Model, error) {
		var m catalog.Model
		var last *time.Time
		err := from.Scan(&m.Name, &m.Runs, &m.Results, &m.GPUModels, &last)
		m.LastRunAt = moment(last)
		return m, err
	}
	w := where{conditions: []string{"model <> ''"}}
	w.within(ctx, "key")
	models, err := ask(ctx, s, scan, `SELECT model, sum(runs)::bigint, sum(results)::bigint,
		coalesce(array_agg(gpu_model ORDER BY gpu_model) FILTER (WHERE gpu_model <> ''), '{}'), max(last)
		FROM (SELECT model, gpu_model, count(*) AS runs, sum(results) AS results, max(started_at) AS last FROM runs`+w.all()+` GROUP BY model, gpu_model) g
		GROUP BY model ORDER BY model`, w.given()...)
	if models == nil {
		models = []catalog.Model{}
	}
	return models, explain(err)
}
