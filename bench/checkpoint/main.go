// SPDX-License-Identifier: Apache-2.0

// Command checkpoint times a first checkpoint, one after 1 % of the data changed, and
// a restore, beside `tar | zstd -1` and `cp -a` on the same files in the same run.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"text/tabwriter"

	"k8s.io/apimachinery/pkg/api/resource"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "checkpoint:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	fs := flag.NewFlagSet("checkpoint", flag.ContinueOnError)
	fs.SetOutput(stderr)
	sizeFlag := fs.String("size", "1Gi", "size of the files to checkpoint, for example 1Gi or 10Gi")
	dir := fs.String("dir", "", "directory to work in, on the disk to be measured (default: a temporary one); 5 times the size must be free")
	rounds := fs.Int("rounds", 3, "times that everything is measured; the table has medians")
	file := fs.String("json", "", "write the measurements to this file")
	if err := fs.Parse(args); err != nil {
		return err
	}
	size, err := resource.ParseQuantity(*sizeFlag)
	if err != nil || size.Value() < 16<<20 {
		return fmt.Errorf("-size %q: give a size of 16Mi or more, for example 1Gi", *sizeFlag)
	}
	if *rounds < 1 {
		return fmt.Errorf("-rounds %d: measure at least once", *rounds)
	}
	work, err := os.MkdirTemp(*dir, "bench-checkpoint-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	var disk syscall.Statfs_t
	if err := syscall.Statfs(work, &disk); err != nil {
		return err
	}
	if free := int64(disk.Bavail) * disk.Bsize; free < 5*size.Value() { //nolint:gosec // far below the limit
		return fmt.Errorf("%s has %d bytes free, and 5 times %d are needed; choose another -dir", work, free, size.Value())
	}
	r := report{Size: size.Value(), Rounds: *rounds, CPUs: runtime.NumCPU(), Processor: processor()}
	for round := range *rounds {
		fmt.Fprintf(stderr, "round %d of %d\n", round+1, *rounds)
		b := bench{ctx: ctx, dir: filepath.Join(work, strconv.Itoa(round)), size: size.Value(), seed: uint64(round), report: &r}
		if err := b.round(); err != nil {
			return err
		}
		if err := os.RemoveAll(b.dir); err != nil {
			return err
		}
	}
	if err := r.table(stdout); err != nil {
		return err
	}
	if *file == "" {
		return nil
	}
	data, err := json.MarshalIndent(r.summary(), "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(*file, append(data, '\n'), 0o644)
}

func (r *report) table(w io.Writer) error {
	s := r.summary()
	fmt.Fprintf(w, "%.1f GiB (70 %% bf16 weights, 10 %% random, 20 %% JSON lines), %d × %s, %d rounds, medians.\n", gib(s.Size), s.CPUs, s.Processor, s.Rounds)
	fmt.Fprintln(w, "Caches warm. Every time includes writing to the disk (sync).")
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "step\twho\tseconds\tGiB/s\tGiB written\tCPU seconds\tpeer's time ÷ ours\t")
	for _, row := range s.Rows {
		ratio := ""
		if row.Ratio != 0 {
			ratio = fmt.Sprintf("%.2f", row.Ratio)
		}
		fmt.Fprintf(t, "%s\t%s\t%.2f\t%.2f\t%.2f\t%.2f\t%s\t\n", row.Step, row.Who, row.Seconds, gib(s.Size)/row.Seconds, gib(row.Written), row.CPU, ratio)
	}
	return t.Flush()
}

func gib(bytes int64) float64 { return float64(bytes) / (1 << 30) }
