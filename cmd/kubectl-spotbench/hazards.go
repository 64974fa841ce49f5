// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/spotbench/spotbench/pkg/risk"
)

func hazardsCommand(streams genericiooptions.IOStreams) *cobra.Command {
	var file, region, source string
	var types []string
	cmd := &cobra.Command{
		Use:   "hazards --advisor FILE --region REGION --instance-type TYPE,...",
		Short: "Make hazards.yaml from AWS's Spot Instance Advisor",
		Long: `Make hazards.yaml, the scheduler's prior, from the data of AWS's Spot Instance
Advisor (spot-advisor-data.json). What it does not list is left out, and said.`,
		Example: `  kubectl spotbench hazards --advisor spot-advisor-data.json --region us-east-1 --instance-type p5.48xlarge,g6.12xlarge`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if file == "" || region == "" || len(types) == 0 {
				return errors.New("--advisor, --region and --instance-type are needed; see --help")
			}
			data, err := os.ReadFile(file)
			if err != nil {
				return fmt.Errorf("--advisor: %w", err)
			}
			advisor, err := risk.ParseAdvisor(data)
			if err != nil {
				return fmt.Errorf("--advisor %s: %w", file, err)
			}
			book, missing, err := advisor.Hazards(region, types, source)
			if err != nil {
				return err
			}
			for _, t := range missing {
				fmt.Fprintf(streams.ErrOut, "the Advisor has no band of %s in %s\n", t, region)
			}
			_, err = fmt.Fprint(streams.Out, book)
			return err
		},
	}
	cmd.Flags().StringVar(&file, "advisor", "", "the Advisor's data, as AWS publishes it")
	cmd.Flags().StringVar(&region, "region", "", "for example us-east-1")
	cmd.Flags().StringSliceVar(&types, "instance-type", nil, "for example p5.48xlarge")
	cmd.Flags().StringVar(&source, "source", "Spot Instance Advisor", "what the entries say they are from")
	return cmd
}
