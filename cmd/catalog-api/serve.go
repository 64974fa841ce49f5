// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/auth"
	"github.com/spotbench/spotbench/pkg/catalog/cache"
	"github.com/spotbench/spotbench/pkg/catalog/certs"
	"github.com/spotbench/spotbench/pkg/catalog/httpapi"
	"github.com/spotbench/spotbench/pkg/catalog/localpg"
	"github.com/spotbench/spotbench/pkg/catalog/postgres"
	"github.com/spotbench/spotbench/pkg/catalog/web"
	"github.com/spotbench/spotbench/pkg/risk"
	"github.com/spotbench/spotbench/pkg/version"
)

// serveOptions are the flags of serve.
type serveOptions struct {
	listen, listenReadOnly string
	tlsCert, tlsKey        string
	dataDir                string
	writers                []string
	writersFile            string
	writerTokens           string
	admins                 []string
	readAccess             string
	namespaces             []string
	rateLimit              float64
	redis                  string
	oidc                   oidcOptions
	kubeconfig             string
	hazards                string
	logLevel               string
	database               databaseOptions
}

// oidcOptions say whose tokens people may show.
type oidcOptions struct{ issuer, clientID, userClaim, groupsClaim string }

// databaseOptions say which database to use.
type databaseOptions struct {
	flag        string
	replicas    []string
	connections int
	timeout     time.Duration
}

func (d *databaseOptions) addFlags(cmd *cobra.Command) {
	// The environment's is no default: --help prints defaults, and it may have a password.
	cmd.Flags().StringVar(&d.flag, "database-url", "", "PostgreSQL's address; the password may be in env DB_PASSWORD instead (env DATABASE_URL)")
	cmd.Flags().IntVar(&d.connections, "database-connections", postgres.DefaultConnections, "most connections to the database")
	cmd.Flags().DurationVar(&d.timeout, "statement-timeout", postgres.DefaultStatementTimeout, "what one statement may take")
}

// url is the database's address, "" when none was given.
func (d *databaseOptions) url() string { return cmp.Or(d.flag, os.Getenv("DATABASE_URL")) }

func (d *databaseOptions) open(ctx context.Context, url string) (*postgres.Store, error) {
	return postgres.Open(ctx, postgres.Options{URL: url, Password: os.Getenv("DB_PASSWORD"), Replicas: d.replicas, Connections: d.connections, StatementTimeout: d.timeout})
}

func serveCommand() *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the API and the pages (the default)",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := newLogger(cmd.ErrOrStderr(), o.logLevel)
			if err != nil {
				return err
			}
			return o.serve(cmd.Context(), log)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", env("LISTEN", ":8000"), "TLS address for reads and writes (env LISTEN)")
	f.StringVar(&o.listenReadOnly, "listen-read-only", env("LISTEN_READ_ONLY", ":8001"), "plain HTTP address that only answers reads; empty for none (env LISTEN_READ_ONLY)")
	f.StringVar(&o.tlsCert, "tls-cert", os.Getenv("TLS_CERT"), "certificate, PEM; read again when it changes. Without one, serve makes its own in the data directory (env TLS_CERT)")
	f.StringVar(&o.tlsKey, "tls-key", os.Getenv("TLS_KEY"), "key of the certificate, PEM (env TLS_KEY)")
	f.StringVar(&o.dataDir, "data-dir", env("DATA_DIR", "/var/lib/catalog"), "directory for our own PostgreSQL, when no database is given, and our own certificate (env DATA_DIR)")
	f.StringSliceVar(&o.writers, "writers", nil, "users and groups (group:NAME) that may write, for example system:serviceaccount:spotbench-system:node-agent")
	f.StringVar(&o.writersFile, "writers-file", os.Getenv("WRITERS_FILE"), "file with more of them, one a line; # begins a comment (env WRITERS_FILE)")
	f.StringVar(&o.writerTokens, "writer-tokens", os.Getenv("WRITER_TOKENS"), "file of `catalog-api token`'s lines, for writers without a cluster; they may all write (env WRITER_TOKENS)")
	f.StringSliceVar(&o.admins, "admins", nil, "users and groups (group:NAME) that may administer: make keys, and read the log of writes")
	f.StringVar(&o.readAccess, "read-access", env("READ_ACCESS", readsOpen), "who may read: "+readsOpen+" is everybody, "+readsToken+" is who shows a token that may read (env READ_ACCESS)")
	f.StringArrayVar(&o.namespaces, "namespaces", nil, "USER=NAMESPACE,... or group:NAME=NAMESPACE,...: whose runs that user or group may see and write; may be repeated. With it, who is in none of the lists sees no run")
	f.Float64Var(&o.rateLimit, "rate-limit", 200, "requests a second of each caller, and twice as many at once; without a token, of each address; a tenth as many tokens that are not valid, of each address; 0 is no limit")
	f.StringVar(&o.redis, "redis-url", "", "Redis, version 6 or newer, that keeps answers to reads for some seconds, for example redis://redis.example:6379 (env REDIS_URL)")
	f.StringVar(&o.oidc.issuer, "oidc-issuer", os.Getenv("OIDC_ISSUER"), "URL of an OpenID Connect issuer whose ID tokens are taken (env OIDC_ISSUER)")
	f.StringVar(&o.oidc.clientID, "oidc-client-id", os.Getenv("OIDC_CLIENT_ID"), "client that those tokens must have been made for (env OIDC_CLIENT_ID)")
	f.StringVar(&o.oidc.userClaim, "oidc-user-claim", "email", "claim with the user's name; the user is oidc:NAME")
	f.StringVar(&o.oidc.groupsClaim, "oidc-groups-claim", "groups", "claim with the user's groups; a group is group:oidc:NAME among --writers and --admins")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "cluster that checks tokens, when not running in it")
	f.StringVar(&o.hazards, "hazards", os.Getenv("HAZARDS_FILE"), "YAML of the hazards that are assumed of pools until their machines have been observed; the scheduler's hazardsFile (env HAZARDS_FILE)")
	f.StringVar(&o.logLevel, "log-level", env("LOG_LEVEL", "info"), "debug, info, warn or error (env LOG_LEVEL)")
	f.StringSliceVar(&o.database.replicas, "replica-url", strings.Fields(os.Getenv("REPLICA_URLS")), "streaming replica of the database that answers reads; may be repeated (env REPLICA_URLS, separated by spaces)")
	o.database.addFlags(cmd)
	return cmd
}

// Who may read.
const (
	readsOpen  = "open"
	readsToken = "token"
)

func (o *serveOptions) validate() error {
	var errs []error
	if (o.tlsCert == "") != (o.tlsKey == "") {
		errs = append(errs, errors.New("--tls-cert and --tls-key belong together; give both or none"))
	}
	for _, a := range []struct{ flag, value string }{{"--listen", o.listen}, {"--listen-read-only", o.listenReadOnly}} {
		if _, _, err := net.SplitHostPort(a.value); err != nil && (a.value != "" || a.flag == "--listen") {
			errs = append(errs, fmt.Errorf("%s %q is no address; use for example :8000 or 127.0.0.1:8000", a.flag, a.value))
		}
	}
	if o.readAccess != readsOpen && o.readAccess != readsToken {
		errs = append(errs, fmt.Errorf("--read-access %q is unknown; use %s or %s", o.readAccess, readsOpen, readsToken))
	}
	if o.readAccess == readsToken && !local(o.listenReadOnly) {
		errs = append(errs, fmt.Errorf("--read-access %s would have readers show their tokens in plain HTTP at --listen-read-only %s; set that to \"\" for none, or for example to 127.0.0.1:8001", readsToken, o.listenReadOnly))
	}
	if (o.oidc.issuer == "") != (o.oidc.clientID == "") {
		errs = append(errs, errors.New("--oidc-issuer and --oidc-client-id belong together; give both or none"))
	}
	if _, err := o.limits(); err != nil {
		errs = append(errs, err)
	}
	if o.rateLimit < 0 {
		errs = append(errs, errors.New("--rate-limit is negative; use 0 for none"))
	}
	if o.database.connections < 2 || o.database.timeout < time.Second {
		errs = append(errs, errors.New("--database-connections must be at least 2, and --statement-timeout at least 1s"))
	}
	if o.database.url() == "" && o.dataDir == "" {
		errs = append(errs, errors.New("neither --database-url nor --data-dir; give one of them"))
	}
	return errors.Join(errs...)
}

// local reports whether nobody from elsewhere reaches an address.
func local(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address == "" // other addresses are refused elsewhere
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// serve runs until ctx ends, then lets the requests in progress finish.
func (o *serveOptions) serve(ctx context.Context, log *slog.Logger) (err error) {
	if err := o.validate(); err != nil {
		return err
	}
	hazards, err := o.assumedHazards()
	if err != nil {
		return err
	}
	log.Info("starting", "version", version.String())
	boundMemory()
	var exited <-chan error
	database := o.database.url()
	if database == "" {
		own, err := localpg.Start(ctx, o.dataDir, log)
		if err != nil {
			return fmt.Errorf("our own PostgreSQL: %w", err)
		}
		defer func() { err = errors.Join(err, own.Stop(context.WithoutCancel(ctx))) }()
		database, exited = own.URL(), own.Exited()
	}
	store, err := o.database.open(ctx, database)
	if err != nil {
		return err
	}
	defer store.Close()
	steps, err := store.MigrateUp(ctx)
	if err != nil {
		return err
	}
	log.Info("the database is ready", "migrations", steps)
	guard, err := o.guard(log, store)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	options := httpapi.Options{Store: store, Guard: guard, Readers: o.readAccess == readsToken, Limits: auth.NewLimits(o.rateLimit), Guesses: auth.NewLimits(o.rateLimit / 10), Hazards: hazards, Log: log, Registry: registry, Pages: web.New(store, hazards, log), PagePatterns: web.Patterns}
	if url := cmp.Or(o.redis, os.Getenv("REDIS_URL")); url != "" { // no default of the flag: --help prints those, and it may have a password
		if options.Cache, err = cache.Open(ctx, url, cache.DefaultLife, registry, log); err != nil {
			return fmt.Errorf("--redis-url: %w", err)
		}
	}
	handler := httpapi.New(options)
	certificate, err := o.certificate(log)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { certificate.Watch(ctx, 30*time.Second, log); return nil })
	group.Go(func() error {
		judged, err := store.Rejudge(ctx)
		if err != nil && ctx.Err() == nil {
			log.Error("verdicts of older rules could not be found anew; filters by verdict may miss runs until the next start", "err", err)
		}
		log.Info("verdicts of older rules were found anew", "runs", judged)
		return nil
	})
	group.Go(func() error { return listen(ctx, log, o.listen, handler, certificate.Config()) })
	if o.listenReadOnly != "" {
		group.Go(func() error { return listen(ctx, log, o.listenReadOnly, httpapi.ReadOnly(handler), nil) })
	}
	group.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case err := <-exited: // never, with a database of somebody else's
			return fmt.Errorf("our own PostgreSQL ended: %w", errors.Join(err, errors.New("its lines in the log say why")))
		}
	})
	err = group.Wait()
	log.Info("stopped")
	return err
}

// boundMemory has the garbage collector run rarely, and keeps the process in 128 MiB all
// the same. What lives for long, a dozen megabytes, is a multiple of what a request needs:
// at Go's default of collecting whenever the heap has doubled, each ten megabytes of
// answers cost a walk through all of it. The limit is soft: a large import goes beyond it.
// What the environment says (GOGC, GOMEMLIMIT) holds instead.
func boundMemory() {
	const (
		growth = 400      // percent
		limit  = 80 << 20 // without the program's own pages
	)
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(growth)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit)
	}
}

// assumedHazards reads the file of hazards; without one the built-in default holds.
func (o *serveOptions) assumedHazards() (risk.Book, error) {
	if o.hazards == "" {
		return risk.Book{}, nil
	}
	data, err := os.ReadFile(o.hazards)
	if err != nil {
		return risk.Book{}, fmt.Errorf("--hazards: %w", err)
	}
	book, err := risk.ParseBook(data)
	if err != nil {
		return risk.Book{}, fmt.Errorf("--hazards %s: %w", o.hazards, err)
	}
	return book, nil
}

// guard says who may do what.
func (o *serveOptions) guard(log *slog.Logger, store *postgres.Store) (*auth.Guard, error) {
	writers := slices.Clone(o.writers)
	if o.writersFile != "" {
		data, err := os.ReadFile(o.writersFile)
		if err != nil {
			return nil, fmt.Errorf("--writers-file: %w", err)
		}
		for line := range strings.Lines(string(data)) {
			name, _, _ := strings.Cut(line, "#")
			if name = strings.TrimSpace(name); name != "" {
				writers = append(writers, name)
			}
		}
	}
	any := auth.AnyOf{auth.NewKeys(store)}
	config, err := rest.InClusterConfig()
	if o.kubeconfig != "" {
		config, err = clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	}
	switch {
	case err == nil:
		config.Timeout = 10 * time.Second
		reviews, err := auth.NewTokenReview(config)
		if err != nil {
			return nil, err
		}
		any = append(any, reviews)
	case !errors.Is(err, rest.ErrNotInCluster):
		return nil, fmt.Errorf("cluster that checks tokens: %w", err)
	}
	if o.writerTokens != "" {
		tokens, err := auth.NewTokenFile(o.writerTokens)
		if err != nil {
			return nil, fmt.Errorf("--writer-tokens: %w", err)
		}
		users, err := tokens.Users()
		if err != nil {
			return nil, fmt.Errorf("--writer-tokens: %w", err)
		}
		writers, any = append(writers, users...), append(any, tokens)
	}
	if o.oidc.issuer != "" {
		any = append(any, auth.NewOIDC(o.oidc.issuer, o.oidc.clientID, o.oidc.userClaim, o.oidc.groupsClaim, &http.Client{Timeout: 10 * time.Second}))
	}
	if len(any) == 1 {
		log.Warn("only keys of `catalog-api keys create` may write: not in a cluster, and neither --kubeconfig, --writer-tokens nor --oidc-issuer is given")
	}
	limits, err := o.limits()
	if err != nil {
		return nil, err
	}
	log.Info("who may write", "users", writers, "admins", o.admins, "reads", o.readAccess, "namespaces", limits)
	return auth.NewGuard(any, writers).WithAdmins(o.admins).WithNamespaces(limits), nil
}

// limits are the namespaces that users and groups are limited to.
func (o *serveOptions) limits() (map[string]catalog.Namespaces, error) {
	limits := map[string]catalog.Namespaces{}
	for _, entry := range o.namespaces {
		n := strings.LastIndex(entry, "=") // a user's name may have one too; a namespace has none
		if n < 1 {
			return nil, fmt.Errorf("--namespaces %q is not USER=NAMESPACE,...; write for example group:oidc:team-a=team-a", entry)
		}
		if strings.HasPrefix(entry, "key:") {
			return nil, fmt.Errorf("--namespaces %q: a key has its own; set them with catalog-api keys create --namespaces", entry)
		}
		limits[entry[:n]] = append(limits[entry[:n]], strings.Split(entry[n+1:], ",")...)
		if err := limits[entry[:n]].Validate(); err != nil {
			return nil, fmt.Errorf("--namespaces %q: %w", entry, err)
		}
	}
	return limits, nil
}

// certificate is the one given, or one of our own.
func (o *serveOptions) certificate(log *slog.Logger) (*certs.Reloader, error) {
	if o.tlsCert != "" {
		return certs.Load(o.tlsCert, o.tlsKey)
	}
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	if name, err := os.Hostname(); err == nil {
		hosts = append(hosts, name)
	}
	dir := filepath.Join(o.dataDir, "tls")
	made, err := certs.Ensure(dir, hosts, time.Now())
	if err != nil {
		return nil, err
	}
	log.Info("using a certificate of our own", "ca", filepath.Join(dir, certs.CAFile), "made", made)
	return certs.Load(filepath.Join(dir, certs.CertFile), filepath.Join(dir, certs.KeyFile))
}

// listen serves on the address until ctx ends, with TLS if there is a configuration.
func listen(ctx context.Context, log *slog.Logger, address string, handler http.Handler, config *tls.Config) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", address, err)
	}
	server := &http.Server{
		Handler: handler, TLSConfig: config, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 3 * time.Minute, WriteTimeout: 4 * time.Minute, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	log.Info("listening", "address", listener.Addr().String(), "tls", config != nil)
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		defer cancel()
		stopped <- server.Shutdown(drain)
	}()
	if config != nil {
		err = server.ServeTLS(listener, "", "")
	} else {
		err = server.Serve(listener)
	}
	if errors.Is(err, http.ErrServerClosed) {
		err = <-stopped
	}
	return err
}
