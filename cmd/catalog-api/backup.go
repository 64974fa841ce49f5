// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/spotbench/spotbench/pkg/catalog/localpg"
	"github.com/spotbench/spotbench/pkg/catalog/postgres"
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
			url := database.url()
			if url == "" {
				return errors.New("--database-url is empty; for the catalog's own PostgreSQL it is postgres://catalog@/catalog?host=DATA-DIR/socket")
			}
			dump, err := onDatabase(cmd.Context(), url, "pg_dump", "--format=custom", "--no-owner", "--no-privileges", "--file="+part)
			if err != nil {
				return err
			}
			if out, err := dump.CombinedOutput(); err != nil {
				return failed(dump, err, out)
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
	var dataDir string
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make a database the catalog that a backup has, in place of what is there",
		Long: `restore puts a file of "catalog-api backup" into a database: in one transaction, so
that a file that is damaged changes nothing. Then the schema is brought up to this
program's. Stop the catalog before. Without --database-url it is the catalog's own
PostgreSQL in --data-dir that is filled.

Keys are as the backup has them, except that one revoked since stays revoked. A secret
that was rotated away since works again: rotate such keys once more. The log of writes
is that of the backup.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			steps := 0
			fill := func(url string) (err error) {
				steps, err = database.restore(cmd.Context(), args[0], url)
				return err
			}
			url := database.url()
			if url == "" && dataDir != "" {
				log := slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
				own, err := localpg.Start(cmd.Context(), dataDir, log)
				if err != nil {
					return fmt.Errorf("our own PostgreSQL: %w", err)
				}
				if err := errors.Join(fill(own.URL()), own.Stop(context.WithoutCancel(cmd.Context()))); err != nil {
					return err
				}
			} else if err := fill(url); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "the catalog is as in %s; %d steps of the schema were added\n", args[0], steps)
			return err
		},
	}
	database.addFlags(cmd)
	cmd.Flags().StringVar(&dataDir, "data-dir", "", "the data directory of a catalog whose own PostgreSQL it is, when no database is given")
	return cmd
}

// Before and after the content of a backup. All tables go first, those that the backup's
// schema does not have yet too: its own would not fit among them. Keys that are revoked
// now stay so.
const (
	beforeRestore = `BEGIN;
CREATE TEMPORARY TABLE revoked (id text, at timestamptz) ON COMMIT DROP;
DO $$ DECLARE name text; BEGIN
	IF to_regclass('api_keys') IS NOT NULL THEN
		INSERT INTO revoked SELECT id, revoked_at FROM api_keys WHERE revoked_at IS NOT NULL;
	END IF;
	FOR name IN SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = current_schema() LOOP
		EXECUTE 'DROP TABLE IF EXISTS ' || name || ' CASCADE';
	END LOOP;
	PERFORM set_config('spotbench.schema', quote_ident(current_schema()), true);
END $$;
`
	afterRestore = `
SELECT set_config('search_path', current_setting('spotbench.schema'), true);
DO $$ BEGIN
	IF to_regclass('api_keys') IS NOT NULL THEN
		UPDATE api_keys k SET revoked_at = r.at FROM pg_temp.revoked r WHERE r.id = k.id AND k.revoked_at IS NULL;
	END IF;
END $$;
COMMIT;
`
)

// restore fills the database at url and brings its schema up, by so many steps.
func (d *databaseOptions) restore(ctx context.Context, file, url string) (steps int, err error) {
	if url == "" {
		return 0, errors.New("--database-url is empty; for the catalog's own PostgreSQL give --data-dir")
	}
	if err := load(ctx, file, url); err != nil {
		return 0, err
	}
	store, err := d.open(ctx, url)
	if err != nil {
		return 0, err
	}
	defer store.Close()
	return store.MigrateUp(ctx)
}

// load has psql do what pg_restore says, in a transaction that only ends well if
// pg_restore did: one that is cut off is taken back.
func load(ctx context.Context, file, url string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	write, err := onDatabase(ctx, url, "psql", "--no-psqlrc", "--quiet", "--output="+os.DevNull, "--set=ON_ERROR_STOP=1")
	if err != nil {
		return err
	}
	read := exec.CommandContext(ctx, filepath.Join(filepath.Dir(write.Path), "pg_restore"), "--no-owner", "--no-privileges", "--file=-", file)
	var said, readSaid bytes.Buffer
	write.Stdout, write.Stderr, read.Stderr = &said, &said, &readSaid
	script, err := write.StdinPipe()
	if err != nil {
		return err
	}
	read.Stdout = script
	if err := write.Start(); err != nil {
		return err
	}
	_, err = io.WriteString(script, beforeRestore)
	if err == nil {
		if err = read.Run(); err != nil {
			err = failed(read, err, readSaid.Bytes())
		}
	}
	if err == nil {
		_, err = io.WriteString(script, afterRestore)
	}
	err = errors.Join(err, script.Close())
	if ended := write.Wait(); ended != nil { // then the others only say that it is gone
		return failed(write, ended, said.Bytes())
	}
	return err
}

// onDatabase is one of PostgreSQL's programs with the database's address, and the
// password in its environment: everybody on the machine sees its arguments.
func onDatabase(ctx context.Context, url, name string, args ...string) (*exec.Cmd, error) {
	bin, ok := localpg.Programs()
	if !ok {
		return nil, fmt.Errorf("%s is not on this machine; install PostgreSQL's client (Debian: apt-get install postgresql)", name)
	}
	address, password, err := postgres.SplitPassword(url)
	if err != nil {
		return nil, err
	}
	program := exec.CommandContext(ctx, filepath.Join(bin, name), append(args, "--dbname="+address)...)
	program.Env = os.Environ()
	if password := cmp.Or(os.Getenv("DB_PASSWORD"), password); password != "" {
		program.Env = append(program.Env, "PGPASSWORD="+password)
	}
	return program, nil
}

func failed(program *exec.Cmd, err error, said []byte) error {
	return fmt.Errorf("%s: %w: %s", filepath.Base(program.Path), err, strings.TrimSpace(string(said)))
}

func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
