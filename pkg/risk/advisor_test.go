// SPDX-License-Identifier: Apache-2.0

package risk_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/risk"
)

const advisor = `{"ranges":[{"index":0,"label":"<5%","dots":0,"max":5},{"index":4,"label":">20%","dots":4,"max":100}],
"spot_advisor":{"us-east-1":{"Linux":{"p5.48xlarge":{"s":52,"r":4},"p5en.48xlarge":{"s":64,"r":0},"odd":{"s":-62}},"Windows":{"m5.large":{"s":1,"r":0}}}}}`

func TestTheAdvisorsBandsBecomeABookOfHazards(t *testing.T) {
	a, err := risk.ParseAdvisor([]byte(advisor))
	if err != nil {
		t.Fatal(err)
	}
	text, missing, err := a.Hazards("us-east-1", []string{"p5.48xlarge", "p5en.48xlarge", "m5.large", "odd"}, "Spot Instance Advisor")
	if err != nil || strings.Join(missing, " ") != "m5.large odd" {
		t.Fatalf("missing %v, %v, want m5.large (Windows only) and odd (without a band)", missing, err)
	}
	book, err := risk.ParseBook([]byte(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	for instanceType, band := range map[string]string{"p5.48xlarge": ">20%", "p5en.48xlarge": "<5%"} {
		want, err := risk.HazardOfBand(band)
		if err != nil {
			t.Fatal(err)
		}
		pool := gpu.Pool{Provider: "aws", Region: "us-east-1", Zone: "us-east-1b", InstanceType: instanceType, CapacityType: gpu.Spot}
		if got := book.Lookup(pool); got.Hazard != want || got.Source != "Spot Instance Advisor" {
			t.Errorf("%s: %+v, want the hazard %v of band %s", instanceType, got, want, band)
		}
	}
	if _, _, err := a.Hazards("mars-1", []string{"p5.48xlarge"}, "x"); err == nil || !strings.Contains(err.Error(), `"mars-1"`) || !strings.Contains(err.Error(), "us-east-1") {
		t.Errorf("error %v, want one with the region and those there are", err)
	}
	if _, _, err := a.Hazards("us-east-1", []string{"none"}, "x"); err == nil {
		t.Error("a book without an entry is no error")
	}
}

func TestAdvisorDataThatIsNotAsExpectedIsRefused(t *testing.T) {
	for name, c := range map[string]struct{ data, want string }{
		"no JSON":              {"<html>", "JSON"},
		"another document":     {`{"ranges":[]}`, "spot-advisor-data.json"},
		"a band of a new cut":  {strings.Replace(advisor, ">20%", "20-30%", 1), `"20-30%"`},
		"a band without index": {strings.Replace(advisor, `"index":4,`, "", 1), "index"},
	} {
		if _, err := risk.ParseAdvisor([]byte(c.data)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %s", name, err, c.want)
		}
	}
}

func TestThePublishedAdvisorIsRead(t *testing.T) {
	dir := os.Getenv("SPOTBENCH_DATA")
	if dir == "" {
		t.Skip("needs the Spot Instance Advisor's data: set SPOTBENCH_DATA to a folder with aws/spot-advisor-data.json (AWS publishes it)")
	}
	data, err := os.ReadFile(filepath.Join(dir, "aws", "spot-advisor-data.json"))
	if err != nil {
		t.Skip(err)
	}
	a, err := risk.ParseAdvisor(data)
	if err != nil {
		t.Fatal(err)
	}
	if band, ok := a.Band("us-east-1", "p5.48xlarge"); !ok || band != ">20%" {
		t.Errorf("p5.48xlarge in us-east-1: %q, %v, want >20%%", band, ok)
	}
}

func FuzzParseAdvisor(f *testing.F) {
	f.Add([]byte(advisor))
	f.Add([]byte(`{"ranges":[{}],"spot_advisor":{"r":{"Linux":{"t":{"r":9}}}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := risk.ParseAdvisor(data)
		if err != nil {
			return
		}
		if _, ok := a.Band("us-east-1", "p5.48xlarge"); ok {
			if _, _, err := a.Hazards("us-east-1", []string{"p5.48xlarge"}, "x"); err != nil {
				t.Errorf("a type with a band has no hazard: %v", err)
			}
		}
	})
}
