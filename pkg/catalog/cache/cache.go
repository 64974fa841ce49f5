// SPDX-License-Identifier: Apache-2.0

// Package cache keeps answers to reads in Redis, and those asked for last in this
// process, ready to be written. Without Redis, or with one that is slow, reads are
// answered from the database as ever.
//
// An answer is filed under the generation of what it shows, and a write begins a new
// generation before it is answered. Of generations Redis itself tells each process when
// they have ended (client-side caching), so that an answer kept here costs no round trip
// and is yet no older than one kept there. An answer that was read before a write can
// therefore be stored after it and do no harm: nobody asks for that generation any
// more. Answers live for a few seconds at most, which bounds what a server that
// cannot reach Redis for its writes can hold back from others that can.
package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/rueidis"
	"golang.org/x/sync/singleflight"

	"github.com/spotbench/spotbench/pkg/catalog"
)

const (
	// DefaultLife is how long an answer is kept at most.
	DefaultLife = 10 * time.Second
	// patience is how long a read waits for Redis: less than the database takes for
	// most.
	patience = 30 * time.Millisecond
	// bumpPatience is how long a write does.
	bumpPatience = 500 * time.Millisecond
	// pause is how long Redis is left alone after it failed a read, or was too slow for
	// so many of them, one after the other: where processors are busy a single one says
	// little, and the database in its stead would make them busier.
	pause    = time.Second
	mostSlow = 5
	// generationLife is how long a generation is known, answers of which live far shorter:
	// without an end there would be one for each run there ever was.
	generationLife = time.Hour
	// fillTime is what reading an answer from the database may take.
	fillTime = time.Minute
	// largest is the largest answer that is kept, inProcess what this process keeps of
	// answers, and knownGenerations of generations.
	largest          = 1 << 20
	inProcess        = 16 << 20
	knownGenerations = 2 << 20
	prefix           = "spotbench:catalog:"
	// mostRemembered is how many tags of writes are kept before they are sifted.
	mostRemembered = 10_000
)

// Cache is a cache of answers. It is safe for concurrent use.
type Cache struct {
	client  atomic.Pointer[rueidis.Client]
	life    time.Duration
	log     *slog.Logger
	flights singleflight.Group
	local   *local
	// restAt is until when Redis is left alone, as nanoseconds, and slow how many reads it
	// was too slow for since it last answered one.
	restAt atomic.Int64
	slow   atomic.Int64

	mu sync.Mutex
	// owed are generations that could not be begun. While there are any,
	// nothing is read from the cache: it may be what a write of ours made wrong.
	owed map[string]bool
	// began is when this process last began a generation. Redis tells of it over
	// another connection than it answers on, some time later: until what was known before
	// has ended by its age, Redis is asked for the generation each time.
	began map[string]time.Time

	hit, miss, bypassed prometheus.Counter
	hits, asked         atomic.Int64
}

// Open uses the Redis (6 or newer) at a URL, redis://[:password@]host:port/db or
// rediss:// for TLS, as soon as it answers and until ctx ends.
func Open(ctx context.Context, url string, life time.Duration, registry prometheus.Registerer, log *slog.Logger) (*Cache, error) {
	options, err := rueidis.ParseURL(url)
	if err != nil {
		return nil, fmt.Errorf("Redis URL: %w; use for example redis://redis.example:6379", redact(err)) //nolint:staticcheck // a name
	}
	options.ClientName = "spotbench-catalog"
	options.CacheSizeEachConn, options.PipelineMultiplex, options.RingScaleEachConn = knownGenerations, 1, 8
	options.DisableRetry, options.ForceSingleClient = true, true
	options.Dialer.Timeout, options.ConnWriteTimeout = time.Second, time.Second
	outcomes := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "spotbench_catalog_cache_requests_total", Help: "Reads by what the cache did: hit, miss, or bypass while Redis does not answer."}, []string{"outcome"})
	c := &Cache{life: life, log: log, local: newLocal(inProcess), owed: map[string]bool{}, began: map[string]time.Time{},
		hit: outcomes.WithLabelValues("hit"), miss: outcomes.WithLabelValues("miss"), bypassed: outcomes.WithLabelValues("bypass")}
	ratio := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "spotbench_catalog_cache_hit_ratio", Help: "Share of the reads since the start that the cache answered."}, func() float64 {
		if asked := c.asked.Load(); asked > 0 {
			return float64(c.hits.Load()) / float64(asked)
		}
		return 0
	})
	registry.MustRegister(outcomes, ratio)
	go c.connect(ctx, options)
	return c, nil
}

// redact leaves out what the error repeats of the URL, which may have a password.
func redact(err error) error {
	if inner := errors.Unwrap(err); inner != nil {
		return inner
	}
	return errors.New("it is none")
}

// connect connects when Redis is there, and pays what is owed to it.
func (c *Cache) connect(ctx context.Context, options rueidis.ClientOption) {
	told := false
	for {
		client, err := rueidis.NewClient(options)
		if err == nil {
			c.client.Store(&client)
			c.log.Info("the cache is in use")
			break
		}
		if !told {
			c.log.Warn("Redis does not answer; reads go to the database until it does", "err", err)
			told = true
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
	for {
		select {
		case <-ctx.Done():
			(*c.client.Load()).Close()
			return
		case <-time.After(pause / 4):
		}
		c.mu.Lock()
		owed := make([]string, 0, len(c.owed))
		for tag := range c.owed {
			owed = append(owed, tag)
		}
		c.mu.Unlock()
		if len(owed) > 0 {
			c.Bump(ctx, owed...)
		}
	}
}

// Bump makes the answers with these tags out of date, here and at every server,
// before it returns, or notes that it has still to be done.
func (c *Cache) Bump(ctx context.Context, tags ...string) {
	client := c.client.Load()
	err := errors.New("not connected")
	if client != nil {
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), bumpPatience)
		defer cancel()
		commands := make(rueidis.Commands, 0, len(tags))
		for _, tag := range tags {
			commands = append(commands, (*client).B().Set().Key(generation(tag)).Value(uuid.NewString()).Ex(generationLife).Build())
		}
		err = nil
		for _, answer := range (*client).DoMulti(limited, commands...) {
			err = errors.Join(err, answer.Error())
		}
	}
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.began) > mostRemembered {
		maps.DeleteFunc(c.began, func(_ string, at time.Time) bool { return now.Sub(at) > c.life })
	}
	for _, tag := range tags {
		c.began[tag] = now
		if err != nil {
			c.owed[tag] = true
		} else {
			delete(c.owed, tag)
		}
	}
	if len(c.owed) > mostRemembered { // all runs at once is as good, and no more to remember
		clear(c.owed)
		c.owed[everything] = true
	}
}

// everything is a tag that all answers have.
const everything = "everything"

func generation(tag string) string { return prefix + "generation:" + tag }

// usable is the client while Redis can be asked and knows all writes of ours. recent
// tells of each tag whether what is remembered of its generation may be from before a
// write of this process.
func (c *Cache) usable(tags [2]string) (client rueidis.Client, recent [2]bool) {
	connected := c.client.Load()
	if connected == nil || time.Now().UnixNano() < c.restAt.Load() {
		return nil, recent
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.owed) > 0 {
		return nil, recent
	}
	for n, tag := range tags {
		if at, ok := c.began[tag]; ok {
			recent[n] = time.Since(at) <= c.life
		}
	}
	return *connected, recent
}

// filler reads an answer from the database; keep says whether it may be kept.
type filler func(context.Context) (a *answer, keep bool)

// get is the answer to a question about what has the tag. It is read by fill, once
// for all who ask at the same time, if it is not there. current is for callers who
// must see what they wrote through another server: Redis is asked for the generation,
// not this process' memory of it.
func (c *Cache) get(ctx context.Context, tag, question string, current bool, fill filler) (*answer, error) {
	c.asked.Add(1)
	tags := [2]string{everything, tag}
	client, recent := c.usable(tags)
	if client == nil {
		return c.bypass(ctx, fill), nil
	}
	var generations [2]string
	for n, t := range tags {
		var err error
		if generations[n], err = c.generation(ctx, client, t, current || recent[n]); err != nil {
			c.failed(ctx, err)
			return c.bypass(ctx, fill), nil
		}
	}
	if a := c.local.get(question, generations, time.Now()); a != nil {
		c.hits.Add(1)
		c.hit.Inc()
		return a, nil
	}
	sum := sha256.Sum256([]byte(question))
	key := prefix + generations[0] + ":" + generations[1] + ":" + hex.EncodeToString(sum[:16])
	entry := &filed{question: question, generations: generations}
	switch err := c.fetch(ctx, client, key, entry); {
	case err != nil:
		c.failed(ctx, err)
		return c.bypass(ctx, fill), nil
	case entry.answer != nil:
		c.hits.Add(1)
		c.hit.Inc()
		return entry.answer, nil
	}
	c.miss.Inc()
	return c.once(ctx, key, func(filling context.Context) *answer {
		// Those who missed just before the last flight landed find what it stored.
		if err := c.fetch(filling, client, key, entry); err == nil && entry.answer != nil {
			return entry.answer
		}
		read := time.Now()
		a, keep := fill(filling)
		if keep && len(a.content) <= largest {
			kept := a.pack()
			storing, cancel := context.WithTimeout(filling, patience)
			defer cancel()
			if err := client.Do(storing, client.B().Set().Key(key).Value(rueidis.BinaryString(kept.encode())).Px(c.life).Build()).Error(); err != nil {
				c.failed(filling, err)
			}
			c.local.put(&filed{question: question, generations: generations, until: read.Add(c.life), answer: kept})
		}
		return a
	})
}

// generation is the present one of a tag: as this process remembers it, or as Redis
// has it.
func (c *Cache) generation(ctx context.Context, client rueidis.Client, tag string, ask bool) (string, error) {
	limited := &patient{Context: ctx}
	defer limited.end()
	key := generation(tag)
	command := client.B().Get().Key(key)
	var answer rueidis.RedisResult
	if ask {
		answer = client.Do(limited, command.Build())
	} else {
		answer = client.DoCache(limited, command.Cache(), c.life)
	}
	text, err := answer.ToString()
	if rueidis.IsRedisNil(err) {
		return begin(limited, client, key)
	}
	return text, err
}

// patient is a context that ends after patience, counted from when somebody begins to
// wait for it: most generations are remembered, and a timer costs more than to look.
type patient struct {
	context.Context
	once    sync.Once
	waiting context.Context
	cancel  context.CancelFunc
}

func (p *patient) begin() context.Context {
	p.once.Do(func() { p.waiting, p.cancel = context.WithTimeout(p.Context, patience) })
	return p.waiting
}

// Done begins to wait.
func (p *patient) Done() <-chan struct{} { return p.begin().Done() }

// Err is that of the wait.
func (p *patient) Err() error { return p.begin().Err() }

// Deadline is the end of the wait.
func (p *patient) Deadline() (time.Time, bool) { return p.begin().Deadline() }

func (p *patient) end() {
	p.once.Do(func() {}) // nobody waited, and nobody begins to
	if p.cancel != nil {
		p.cancel()
	}
}

// fetch looks for an answer in Redis and keeps it here, for as long as it is kept there.
func (c *Cache) fetch(ctx context.Context, client rueidis.Client, key string, entry *filed) error {
	looking, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answers := client.DoMulti(looking, client.B().Get().Key(key).Build(), client.B().Pttl().Key(key).Build())
	text, err := answers[0].AsBytes()
	if (err == nil || rueidis.IsRedisNil(err)) && c.slow.Load() > 0 {
		c.slow.Store(0)
	}
	if rueidis.IsRedisNil(err) {
		return nil
	}
	if err != nil {
		return err
	}
	left, err := answers[1].AsInt64()
	if err != nil {
		return err
	}
	if entry.answer = decode(text); entry.answer != nil && left > 0 {
		entry.until = time.Now().Add(time.Duration(left) * time.Millisecond)
		c.local.put(entry)
	}
	return nil
}

// begin is the generation of what has none yet: one that nobody has used, also if
// Redis forgot the last one.
func begin(ctx context.Context, client rueidis.Client, key string) (string, error) {
	answers := client.DoMulti(ctx, client.B().Set().Key(key).Value(uuid.NewString()).Nx().Ex(generationLife).Build(), client.B().Get().Key(key).Build())
	return answers[1].ToString()
}

// once fills for all who ask at the same time. The filling goes on for the others
// when the first caller goes away.
func (c *Cache) once(ctx context.Context, key string, fill func(context.Context) *answer) (*answer, error) {
	flight := c.flights.DoChan(key, func() (a any, err error) {
		// Out of here it would end the process: no caller is on this stack.
		defer func() {
			if caught := recover(); caught != nil {
				err = fmt.Errorf("the read panicked: %v\n%s", caught, debug.Stack())
			}
		}()
		filling, cancel := context.WithTimeout(context.WithoutCancel(ctx), fillTime)
		defer cancel()
		// A replica that lags behind would have the answer of before the write that
		// made this generation.
		return fill(catalog.WithPrimary(filling)), nil
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case landed := <-flight:
		a, _ := landed.Val.(*answer)
		return a, landed.Err
	}
}

func (c *Cache) bypass(ctx context.Context, fill filler) *answer {
	c.bypassed.Inc()
	a, _ := fill(ctx)
	return a
}

// failed leaves Redis alone for a while after it failed a read, or was too slow for some,
// unless it was the caller who went away, or another one whose question this one shared.
func (c *Cache) failed(ctx context.Context, err error) {
	if ctx.Err() != nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) && c.slow.Add(1) < mostSlow {
		return
	}
	c.slow.Store(0)
	c.restAt.Store(time.Now().Add(pause).UnixNano())
}
