// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/user"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/auth"
	"github.com/spotbench/spotbench/pkg/catalog/postgres"
)

func keysCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "keys",
		Short: "Make, list, rotate and revoke API keys, in the catalog's database",
		Long: `keys makes, lists, rotates and revokes the API keys of people and tools, in the
catalog's database itself: this is how the first administrator gets one. Administrators
can do the same over the API (/v1/keys).`,
		Args: cobra.NoArgs,
	}
	root.AddCommand(keysCreateCommand(), keysRotateCommand(), keysListCommand(), keysRevokeCommand())
	return root
}

// onKeys is a command that works on the keys of a database. What it changes is
// filed in the log of writes under the name of the user of this machine.
func onKeys(cmd *cobra.Command, operation string, do func(ctx context.Context, store *postgres.Store, id string, out io.Writer) error) *cobra.Command {
	var database databaseOptions
	database.addFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		url := database.url()
		if url == "" {
			return errors.New("--database-url is empty; for the catalog's own PostgreSQL it is postgres://catalog@/catalog?host=DATA-DIR/socket")
		}
		store, err := database.open(cmd.Context(), url)
		if err != nil {
			return err
		}
		defer store.Close()
		id := ""
		if len(args) > 0 {
			id = args[0]
		}
		return do(catalog.Writing(cmd.Context(), catalog.AuditEntry{Caller: operator(), Operation: operation, Target: id}), store, id, cmd.OutOrStdout())
	}
	return cmd
}

func operator() string {
	if u, err := user.Current(); err == nil {
		return "cli:" + u.Username
	}
	return "cli"
}

func keysCreateCommand() *cobra.Command {
	var role string
	var namespaces []string
	var life time.Duration
	cmd := &cobra.Command{Use: "create NAME", Short: "Make a key; it is shown only now", Example: "  catalog-api keys create ci --role write --expires 2160h", Args: cobra.ExactArgs(1)}
	cmd.Flags().StringVar(&role, "role", string(catalog.Writer), "what it may do: read, write (and read), admin (and both)")
	cmd.Flags().StringSliceVar(&namespaces, "namespaces", nil, "namespaces whose runs it may see and write (default: all)")
	cmd.Flags().DurationVar(&life, "expires", 90*24*time.Hour, "after how long it ends, at most two years")
	return onKeys(cmd, "create-key", func(ctx context.Context, store *postgres.Store, id string, out io.Writer) error {
		text, hash := auth.NewKey(id)
		key, err := store.CreateKey(ctx, catalog.APIKey{ID: id, Role: catalog.Role(role), Namespaces: namespaces, CreatedBy: operator(), ExpiresAt: time.Now().Add(life)}, hash)
		if err != nil {
			return err
		}
		return printKey(out, key, text)
	})
}

func keysRotateCommand() *cobra.Command {
	var life, overlap time.Duration
	cmd := &cobra.Command{Use: "rotate NAME", Short: "Give a key a new secret; it is shown only now", Args: cobra.ExactArgs(1)}
	cmd.Flags().DurationVar(&life, "expires", 90*24*time.Hour, "after how long it ends, at most two years")
	cmd.Flags().DurationVar(&overlap, "overlap", 24*time.Hour, "how long the old secret works on")
	return onKeys(cmd, "rotate-key", func(ctx context.Context, store *postgres.Store, id string, out io.Writer) error {
		text, hash := auth.NewKey(id)
		key, err := store.RotateKey(ctx, id, hash, time.Now().Add(life), overlap, "")
		if err != nil {
			return err
		}
		return printKey(out, key, text)
	})
}

func printKey(out io.Writer, key catalog.APIKey, text string) error {
	_, err := fmt.Fprintf(out, "key, shown only now: %s\nrole %s for %s, expires %s\n", text, key.Role, key.Namespaces, key.ExpiresAt.Format(time.DateTime))
	return err
}

func keysListCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "Show every key, without its secret", Args: cobra.NoArgs}
	return onKeys(cmd, "", func(ctx context.Context, store *postgres.Store, _ string, out io.Writer) error {
		keys, err := store.ListKeys(ctx)
		if err != nil {
			return err
		}
		table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "NAME\tROLE\tNAMESPACES\tSTATE\tEXPIRES\tLAST USED\tCREATED BY")
		for _, k := range keys {
			state := "works"
			switch {
			case !k.RevokedAt.IsZero():
				state = "revoked"
			case !k.ExpiresAt.After(time.Now()):
				state = "expired"
			}
			used := "never"
			if !k.LastUsedAt.IsZero() {
				used = k.LastUsedAt.Format(time.DateTime)
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.ID, k.Role, k.Namespaces, state, k.ExpiresAt.Format(time.DateTime), used, k.CreatedBy)
		}
		return table.Flush()
	})
}

func keysRevokeCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "revoke NAME", Short: "End a key for good", Args: cobra.ExactArgs(1)}
	return onKeys(cmd, "revoke-key", func(ctx context.Context, store *postgres.Store, id string, out io.Writer) error {
		if err := store.RevokeKey(ctx, id); err != nil {
			return err
		}
		_, err := fmt.Fprintf(out, "%s is revoked; servers that know it let it in for at most ten seconds more\n", id)
		return err
	})
}
