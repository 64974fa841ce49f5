// SPDX-License-Identifier: Apache-2.0

// Catalog-api serves the model and benchmark catalog.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/spotbench/spotbench/pkg/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "catalog-api:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has just run
	}
}

func command() *cobra.Command {
	serve := serveCommand()
	root := &cobra.Command{
		Use:   "catalog-api",
		Short: "Serve the catalog of models, benchmark runs and results",
		Long: `catalog-api keeps benchmark runs in PostgreSQL and serves them as a REST API
and as web pages. Without a command it serves.`,
		Version:       version.String(),
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          serve.RunE,
	}
	root.Flags().AddFlagSet(serve.Flags())
	root.AddCommand(serve, importCommand(), awaitCommand(), reportCommand(), migrateCommand(), healthcheckCommand(), certsCommand(), tokenCommand(), keysCommand(), backupCommand(), restoreCommand())
	return root
}

// env is a flag's default from the environment.
func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

func newLogger(w io.Writer, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("--log-level %q is unknown; use debug, info, warn or error", level)
	}
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: l})), nil
}
