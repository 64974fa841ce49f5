// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	"github.com/spotbench/spotbench/pkg/catalog/filter"
)

// addFilter makes a flag of every parameter of the API's filter: gpuModel is
// --gpu-model. The namespace is kubectl's own flag; setNamespace takes it over.
func addFilter(cmd *cobra.Command, of any) {
	for _, f := range filter.Fields(of) {
		if f.Name == "namespace" {
			continue
		}
		name, usage := kebab(f.Name), f.Doc
		if f.Values != nil {
			usage += ": " + strings.Join(f.Values, ", ")
		}
		if f.Default != "" {
			usage += " (default " + f.Default + ")"
		}
		value := &filterFlag{field: f}
		cmd.Flags().Var(value, name, usage)
		if value.Type() == "bool" {
			cmd.Flags().Lookup(name).NoOptDefVal = "true"
		}
		if f.Values != nil {
			if err := cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(f.Values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
				panic(err) // the flag is defined above
			}
		}
	}
}

// setNamespace sets the filter's namespace to that of kubectl's flag, if it was given.
func setNamespace(of any, config *genericclioptions.ConfigFlags) {
	for _, f := range filter.Fields(of) {
		if f.Name == "namespace" && config.Namespace != nil {
			f.Value.SetString(*config.Namespace)
		}
	}
}

// filterFlag is a parameter as a flag; one that is a list may be given several
// times, or with commas.
type filterFlag struct {
	field filter.Field
	given []string
}

func (f *filterFlag) Set(value string) error {
	values := []string{value}
	if f.Type() == "strings" {
		values = append(slices.Clone(f.given), strings.Split(value, ",")...)
	}
	if err := f.field.Set(values); err != nil {
		return err
	}
	f.given = values
	return nil
}

func (f *filterFlag) String() string { return strings.Join(f.given, ",") }

func (f *filterFlag) Type() string {
	switch kind := f.field.Value.Type().String(); kind {
	case "[]string":
		return "strings"
	case "time.Time":
		return "time"
	case "bool", "int", "int64", "float64":
		return kind
	}
	return "string"
}

// kebab is a parameter's name as a flag's.
func kebab(name string) string {
	var b strings.Builder
	previous := '-'
	for _, r := range name {
		if unicode.IsUpper(r) && unicode.IsLower(previous) {
			b.WriteByte('-')
		}
		b.WriteRune(unicode.ToLower(r))
		previous = r
	}
	return b.String()
}

// checkListOutput refuses a format before anything is asked for.
func checkListOutput(output string) error {
	switch output {
	case "", "wide", "json", "yaml", "csv":
		return nil
	}
	return fmt.Errorf("--output %q is unknown; use wide, json, yaml or csv, or leave it out for a table", output)
}
