// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/kubernetes"

	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/pricing"
	"github.com/spotbench/spotbench/pkg/pricing/pricefeed"
)

func pricesCommand(config *genericclioptions.ConfigFlags, streams genericiooptions.IOStreams) *cobra.Command {
	var from, endpoint, book string
	var query pricefeed.Query
	cmd := &cobra.Command{
		Use:   "prices --from SOURCE",
		Short: "Fetch what instances cost, as a price book for the scheduler",
		Long: `Fetch what instances cost, and write it as a price book (prices.yaml) of the
scheduler. Each price has its day and its source; what a source does not list is
left out, and said.

  aws       spot prices of each zone now, from EC2's spot price history; credentials
            as the AWS command line takes them
  azure     on demand and spot, from Azure's public retail prices
  gcp       on demand and spot, put together from Google's public list; the API key
            is in env GOOGLE_API_KEY
  opencost  what OpenCost at --endpoint reckons the nodes of this cluster cost`,
		Example: `  kubectl spotbench prices --from aws --region us-east-1 --instance-type p5.48xlarge,g6.12xlarge
  kubectl spotbench prices --from azure --region eastus --instance-type Standard_ND96isr_H100_v5 --merge prices.yaml
  kubectl spotbench prices --from opencost --endpoint http://127.0.0.1:9003`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var known []pricing.Price
			if book != "" {
				data, err := os.ReadFile(book)
				if err != nil {
					return fmt.Errorf("--merge: %w", err)
				}
				parsed, err := pricing.Parse(data)
				if err != nil {
					return fmt.Errorf("--merge %s: %w", book, err)
				}
				known = parsed.Prices()
			}
			source, err := priceSource(cmd.Context(), from, endpoint, query.Region, config)
			if err != nil {
				return err
			}
			fetched, err := source.Prices(cmd.Context(), query)
			if err != nil {
				return err
			}
			for _, t := range query.InstanceTypes {
				if !slices.ContainsFunc(fetched, func(p pricing.Price) bool { return p.InstanceType == t }) {
					fmt.Fprintf(streams.ErrOut, "%s lists no price of %s in %s\n", from, t, query.Region)
				}
			}
			if len(fetched) == 0 {
				return errors.New("no price was found; nothing is written")
			}
			// What was fetched takes the place of what the book had for the same pool.
			known = slices.DeleteFunc(known, func(p pricing.Price) bool {
				return slices.ContainsFunc(fetched, func(f pricing.Price) bool { return f.Pool() == p.Pool() })
			})
			data, err := pricing.Format(append(known, fetched...))
			if err != nil {
				return err
			}
			_, err = streams.Out.Write(data)
			return err
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "where prices come from: aws, azure, gcp or opencost")
	cmd.Flags().StringVar(&query.Region, "region", "", "the cloud's own name of the region, for example us-east-1")
	cmd.Flags().StringSliceVar(&query.InstanceTypes, "instance-type", nil, "the cloud's own names of instance types")
	cmd.Flags().StringVar(&endpoint, "endpoint", "", "another address than the source's public one")
	cmd.Flags().StringVar(&book, "merge", "", "a price book whose other prices are kept")
	return cmd
}

func priceSource(ctx context.Context, from, endpoint, region string, flags *genericclioptions.ConfigFlags) (pricefeed.Source, error) {
	options := pricefeed.Options{Endpoint: strings.TrimSuffix(endpoint, "/")}
	switch from {
	case "aws":
		loaded, err := config.LoadDefaultConfig(ctx, config.WithRegion(region))
		if err != nil {
			return nil, fmt.Errorf("AWS credentials: %w", err)
		}
		return pricefeed.AWS{Options: options, Credentials: loaded.Credentials}, nil
	case "azure":
		return pricefeed.Azure{Options: options}, nil
	case "gcp":
		return pricefeed.GCP{Options: options, Key: os.Getenv("GOOGLE_API_KEY")}, nil
	case "opencost":
		pools, err := nodePools(ctx, flags)
		if err != nil {
			return nil, err
		}
		return pricefeed.OpenCost{Options: options, Pools: pools}, nil
	}
	return nil, fmt.Errorf("--from %q is unknown; use aws, azure, gcp or opencost", from)
}

// nodePools are the pools of the cluster's nodes by name.
func nodePools(ctx context.Context, flags *genericclioptions.ConfigFlags) (map[string]gpu.Pool, error) {
	restConfig, err := flags.ToRESTConfig()
	if err != nil {
		return nil, fmt.Errorf("which cluster: %w; give --kubeconfig", err)
	}
	client, err := kubernetes.NewForConfig(restConfig)
	if err != nil {
		return nil, err
	}
	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list the cluster's nodes: %w", err)
	}
	pools := map[string]gpu.Pool{}
	for _, n := range nodes.Items {
		pools[n.Name] = gpu.NodePool(n.Labels, n.Spec.ProviderID)
	}
	return pools, nil
}
