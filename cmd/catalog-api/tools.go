// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/auth"
	"github.com/spotbench/spotbench/pkg/catalog/certs"
	"github.com/spotbench/spotbench/pkg/catalog/client"
	"github.com/spotbench/spotbench/pkg/catalog/importer"
)

func importCommand() *cobra.Command {
	var server, ca, tokenFile, key string
	var run catalog.Run
	cmd := &cobra.Command{
		Use:     "import --run KEY FILE...",
		Short:   "Import result files into a run of a catalog, making the run if need be",
		Example: "  catalog-api import --server https://catalog:8000 --ca ca.crt --token-file token --run lab/llama-8b --gpu-model H100-80GB results/*.json",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			httpClient, err := client.Trusting(ca, 2*time.Minute)
			if err != nil {
				return fmt.Errorf("--ca: %w", err)
			}
			c, err := client.New(server, httpClient, func(context.Context) (string, error) {
				if tokenFile == "" {
					return os.Getenv("CATALOG_TOKEN"), nil
				}
				token, err := os.ReadFile(tokenFile)
				return strings.TrimSpace(string(token)), err
			})
			if err != nil {
				return err
			}
			if _, err := c.PutRun(cmd.Context(), key, run); err != nil {
				return err
			}
			var errs []error
			for _, file := range files {
				content, err := importer.ReadFile(file, filepath.Base(file))
				if err != nil {
					errs = append(errs, err)
					continue
				}
				// What the catalog would refuse is not sent.
				if _, err := importer.Parse(filepath.Base(file), content); err != nil {
					errs = append(errs, err)
					continue
				}
				imported, err := c.Import(cmd.Context(), key, filepath.Base(file), content)
				if err != nil {
					errs = append(errs, err)
					continue
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %s, %s, %d results\n", file, imported.Format, imported.ID, len(imported.Results))
				for _, note := range imported.Notes {
					fmt.Fprintf(cmd.OutOrStdout(), "%s: note: %s\n", file, note)
				}
			}
			return errors.Join(errs...)
		},
	}
	f := cmd.Flags()
	f.StringVar(&server, "server", env("CATALOG_URL", "https://localhost:8000"), "the catalog's address (env CATALOG_URL)")
	f.StringVar(&ca, "ca", os.Getenv("CATALOG_CA"), "CA that signed the catalog's certificate, PEM (env CATALOG_CA; without it, the system's)")
	f.StringVar(&tokenFile, "token-file", "", "file with a writer's token (without it, env CATALOG_TOKEN)")
	f.StringVar(&key, "run", "", "key of the run")
	f.StringVar(&run.Model, "model", "", "model of the run")
	f.StringVar(&run.Benchmark, "benchmark", "", "name of the benchmark")
	f.StringVar(&run.GPUModel, "gpu-model", "", "GPU model the files were measured on")
	f.IntVar(&run.GPUCount, "gpu-count", 0, "number of those GPUs")
	f.StringVar(&run.Engine, "engine", "", "inference engine that was measured, for example vllm")
	f.StringVar(&run.EngineVersion, "engine-version", "", "its version")
	f.StringVar(&run.DriverVersion, "driver-version", "", "version of the GPU driver")
	f.Float64Var(&run.USDPerHour, "usd-per-hour", 0, "price of the GPUs, USD per hour, for the cost per million tokens")
	f.StringVar(&run.PriceSource, "price-source", "", "where that price is from")
	f.StringVar((*string)(&run.Status), "status", string(catalog.Succeeded), "state of the run")
	if err := cmd.MarkFlagRequired("run"); err != nil {
		panic(err) // the flag is defined above
	}
	return cmd
}

func migrateCommand() *cobra.Command {
	var database databaseOptions
	cmd := &cobra.Command{
		Use:       "migrate up|down|status",
		Short:     "Bring the database's schema up, take back its newest step, or show it",
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"up", "down", "status"},
		RunE: func(cmd *cobra.Command, args []string) error {
			url := database.url()
			if url == "" {
				return errors.New("--database-url is empty; give PostgreSQL's address, for example postgres://catalog@db.example/catalog")
			}
			store, err := database.open(cmd.Context(), url)
			if err != nil {
				return err
			}
			defer store.Close()
			out := cmd.OutOrStdout()
			switch args[0] {
			case "up":
				steps, err := store.MigrateUp(cmd.Context())
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(out, "%d steps done\n", steps)
				return err
			case "down":
				return store.MigrateDown(cmd.Context())
			}
			steps, err := store.MigrateStatus(cmd.Context())
			if err != nil {
				return err
			}
			table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
			for _, s := range steps {
				fmt.Fprintf(table, "%d\t%s\t%s\n", s.Version, s.File, map[bool]string{true: "applied", false: "pending"}[s.Applied])
			}
			return table.Flush()
		},
	}
	database.addFlags(cmd)
	return cmd
}

func healthcheckCommand() *cobra.Command {
	var url string
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Exit 0 when the catalog is ready, for container runtimes without HTTP probes",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), 5*time.Second)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
			if err != nil {
				return fmt.Errorf("--url: %w", err)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				text, _ := io.ReadAll(io.LimitReader(resp.Body, 1024)) // it is only for the message
				return fmt.Errorf("not ready: %s: %s", resp.Status, strings.TrimSpace(string(text)))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&url, "url", "http://127.0.0.1:8001/readyz", "what to ask")
	return cmd
}

func certsCommand() *cobra.Command {
	var out string
	var dns, ips []string
	cmd := &cobra.Command{
		Use:     "certs --out DIR --dns NAME --ip ADDRESS",
		Short:   "Make a CA and a server certificate: ca.crt, tls.crt and tls.key",
		Example: "  catalog-api certs --out tls --dns api-service.model-catalog.svc --dns localhost --ip 127.0.0.1",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			pair, err := certs.New(append(dns, ips...), time.Now())
			if err != nil {
				return err
			}
			if err := pair.Write(out); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s, %s and %s are in %s\n", certs.CAFile, certs.CertFile, certs.KeyFile, out)
			return err
		},
	}
	cmd.Flags().StringVar(&out, "out", "tls", "directory for the files")
	cmd.Flags().StringSliceVar(&dns, "dns", nil, "DNS name of the server; may be repeated")
	cmd.Flags().StringSliceVar(&ips, "ip", nil, "IP address of the server; may be repeated")
	return cmd
}

func tokenCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "token NAME",
		Short: "Make a writer's token, and the line for --writer-tokens that lets it in",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			token, line, err := auth.NewToken(args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "token, shown only now: %s\nline for the file:     %s\n", token, line)
			return err
		},
	}
}
