// SPDX-License-Identifier: Apache-2.0

package pricefeed

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/pricing"
)

// AWS asks EC2's DescribeSpotPriceHistory for the spot prices of each zone now. It
// needs the right ec2:DescribeSpotPriceHistory.
type AWS struct {
	Options
	Credentials aws.CredentialsProvider
	// Now is the clock of signatures; nil is the machine's.
	Now func() time.Time
}

type spotPriceHistory struct {
	XMLName xml.Name `xml:"DescribeSpotPriceHistoryResponse"`
	Items   []struct {
		InstanceType       string    `xml:"instanceType"`
		ProductDescription string    `xml:"productDescription"`
		SpotPrice          string    `xml:"spotPrice"`
		Timestamp          time.Time `xml:"timestamp"`
		AvailabilityZone   string    `xml:"availabilityZone"`
	} `xml:"spotPriceHistorySet>item"`
	NextToken string `xml:"nextToken"`
}

// Prices are the newest spot price of each instance type and zone.
func (a AWS) Prices(ctx context.Context, q Query) ([]pricing.Price, error) {
	if q.Region == "" || len(q.InstanceTypes) == 0 {
		return nil, errors.New("EC2's spot prices are asked for by region and instance types; give for example us-east-1 and p5.48xlarge")
	}
	now := time.Now
	if a.Now != nil {
		now = a.Now
	}
	newest := map[gpu.Pool]pricing.Price{}
	token := ""
	for range mostPages {
		form := url.Values{
			"Action": {"DescribeSpotPriceHistory"}, "Version": {"2016-11-15"}, "ProductDescription.1": {"Linux/UNIX"},
			// A history from now on begins with the prices that hold now.
			"StartTime": {now().UTC().Format(time.RFC3339)},
		}
		for i, t := range q.InstanceTypes {
			form.Set("InstanceType."+strconv.Itoa(i+1), t)
		}
		if token != "" {
			form.Set("NextToken", token)
		}
		page, err := a.ask(ctx, q.Region, form, now())
		if err != nil {
			return nil, err
		}
		for _, item := range page.Items {
			usd, err := strconv.ParseFloat(item.SpotPrice, 64)
			if err != nil || !(usd > 0) || item.AvailabilityZone == "" || item.InstanceType == "" || item.Timestamp.IsZero() {
				return nil, fmt.Errorf("EC2's spot price history has an entry that is no price: %+v", item)
			}
			p := pricing.Price{Provider: "aws", Region: q.Region, Zone: item.AvailabilityZone, InstanceType: item.InstanceType, CapacityType: gpu.Spot,
				USDPerHour: usd, AsOf: item.Timestamp.UTC(), Source: "EC2 spot price history"}
			if p.AsOf.After(newest[p.Pool()].AsOf) {
				newest[p.Pool()] = p
			}
		}
		if token = page.NextToken; token == "" {
			return checked(newest)
		}
	}
	return nil, fmt.Errorf("EC2's spot price history has more than %d pages; ask for fewer instance types", mostPages)
}

func (a AWS) ask(ctx context.Context, region string, form url.Values, now time.Time) (spotPriceHistory, error) {
	var page spotPriceHistory
	body := form.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.endpoint("https://ec2."+region+".amazonaws.com/"), strings.NewReader(body))
	if err != nil {
		return page, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	if a.Credentials == nil {
		return page, errors.New("no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile")
	}
	credentials, err := a.Credentials.Retrieve(ctx)
	if err != nil {
		return page, fmt.Errorf("AWS credentials: %w", err)
	}
	sum := sha256.Sum256([]byte(body))
	if err := v4.NewSigner().SignHTTP(ctx, credentials, req, hex.EncodeToString(sum[:]), "ec2", region, now); err != nil {
		return page, fmt.Errorf("sign the request to EC2: %w", err)
	}
	answer, err := fetch(a.client(), req)
	if err != nil {
		return page, err
	}
	if err := xml.Unmarshal(answer, &page); err != nil { //nolint:gosec // into a struct of ours, from the host that was asked
		return page, fmt.Errorf("the answer of %s is not the XML expected: %w", req.URL.Host, err)
	}
	return page, nil
}
