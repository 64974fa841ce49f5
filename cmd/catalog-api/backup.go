// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/spotbench/spotbench/pkg/catalog/localpg"
)

func backupCommand() *cobra.Command {
	var database databaseOptions
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write the whole catalog, as it is at one moment, into a file",
		Long: `backup writes the database into a file by PostgreSQL's own pg_dump, while the catalog
runs. The file has the place of the one before it only when it is whole.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			part := args[0] + ".part"
			defer func() { err = errors.Join(err, removeIfThere(part)) }()
			if err := database.program(cmd, "pg_dump", "--format=custom", "--no-owner", "--no-privileges", "--file="+part, "--dbname="); err != nil {
				return err
			}
			if err := os.Rename(part, args[0]); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "the catalog is in %s\n", args[0])
			return err
		},
	}
	database.addFlags(cmd)
	return cmd
}

func restoreCommand() *cobra.Command {
	var database databaseOptions
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make a database the catalog that a backup has, in place of what is there",
		Long: `restore puts a file of "catalog-api backup" into a database: in one transaction, so
that a file that is damaged changes nothing. Then the schema is brought up to this
program's. Stop the catalog before.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := database.program(cmd, "pg_restore", "--clean", "--if-exists", "--single-transaction", "--no-owner", "--no-privileges", "--exit-on-error", args[0], "--dbname="); err != nil {
				return err
			}
			store, err := database.open(cmd.Context(), database.url())
			if err != nil {
				return err
			}
			defer store.Close()
			steps, err := store.MigrateUp(cmd.Context())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "the catalog is as in %s; %d steps of the schema were added\n", args[0], steps)
			return err
		},
	}
	database.addFlags(cmd)
	return cmd
}

// program runs one of PostgreSQL's programs; the database's address goes to the end
// of its last argument. The password is in its environment, where others do not see it.
func (d *databaseOptions) program(cmd *cobra.Command, name string, args ...string) error {
	url := d.url()
	if url == "" {
		return errors.New("--database-url is empty; for the catalog's own PostgreSQL it is postgres://catalog@/catalog?host=DATA-DIR/socket")
	}
	bin, ok := localpg.Programs()
	if !ok {
		return fmt.Errorf("%s is not on this machine; install PostgreSQL's client (Debian: apt-get install postgresql)", name)
	}
	args[len(args)-1] += url
	return runProgram(cmd.Context(), filepath.Join(bin, name), args)
}

func runProgram(ctx context.Context, path string, args []string) error {
	program := exec.CommandContext(ctx, path, args...)
	program.Env = os.Environ()
	if password := os.Getenv("DB_PASSWORD"); password != "" {
		program.Env = append(program.Env, "PGPASSWORD="+password)
	}
	if out, err := program.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(path), err, strings.TrimSpace(string(out)))
	}
	return nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
