// SPDX-License-Identifier: Apache-2.0

// Command spot replays recordings of spot capacity and compares policies: what a
// run with a deadline costs, what is saved against on-demand capacity and against
// the bound that the spot discount itself sets.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/spotbench/spotbench/bench/internal/output"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintln(os.Stderr, "spot:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	setting, err := o.setting(os.ReadFile, stderr)
	if err != nil {
		return err
	}
	starts, err := o.starts(setting)
	if err != nil {
		return err
	}
	var reports []Report
	for _, name := range o.policies {
		report, err := measure(name, setting, starts, o.history)
		if err != nil {
			return err
		}
		reports = append(reports, report)
	}
	if err := print(stdout, setting, starts, reports); err != nil {
		return err
	}
	if o.json != "" {
		if err := output.JSON(o.json, stdout, reports); err != nil {
			return err
		}
	}
	if o.draw != "" {
		return drawTimelines(o.draw, setting, starts, reports)
	}
	return nil
}
