// SPDX-License-Identifier: Apache-2.0

package httpapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/spotbench/spotbench/pkg/catalog"
)

func TestTheLivesOfMachinesBecomeTheRiskOfTheirPool(t *testing.T) {
	s := newStage(t)
	now := time.Now().UTC().Truncate(time.Second)
	zone := fmt.Sprint("zone-", now.UnixNano())
	tell := func(uid string, i catalog.Instance) int {
		body, err := json.Marshal(i)
		if err != nil {
			t.Fatal(err)
		}
		resp, _ := s.send(t, http.MethodPut, "/v1/instances/"+zone+uid, s.writer, string(body))
		return resp.StatusCode
	}
	of := func(path string) catalog.PoolRisk {
		resp, body := s.send(t, http.MethodGet, path, "", "")
		var page catalog.Page[catalog.PoolRisk]
		if err := json.Unmarshal([]byte(body), &page); err != nil || resp.StatusCode != http.StatusOK || len(page.Items) != 1 {
			t.Fatalf("GET %s: %d %s, %v, want one pool", path, resp.StatusCode, body, err)
		}
		return page.Items[0]
	}
	path := "/v1/risk?provider=aws&region=r&instanceType=p5.48xlarge&zone=" + zone
	before := of(path)
	if before.Machines != 0 || before.PriorPerHour != 0.05 {
		t.Errorf("before any machine was told of: %+v, want the built-in prior of 0.05 per hour", before)
	}
	for n := range 5 {
		i := catalog.Instance{Provider: "aws", Region: "r", Zone: zone, InstanceType: "p5.48xlarge", CapacityType: "spot",
			StartedAt: now.Add(-2 * time.Hour), SeenAt: now.Add(-time.Hour), NoticeAt: now.Add(-time.Hour)}
		for range 2 { // told twice, counted once
			if code := tell(strconv.Itoa(n), i); code != http.StatusOK {
				t.Fatalf("PUT: %d, want 200", code)
			}
		}
	}
	after := of(path)
	if after.Machines != 5 || after.Interruptions < 4.9 || after.InstanceHours < 4.9 || after.InstanceHours > 5 {
		t.Errorf("evidence %+v, want 5 machines, 5 interruptions and 5 hours", after)
	}
	if after.HazardByAge[1].PerHour <= before.HazardByAge[1].PerHour {
		t.Errorf("hazard after five early interruptions %.3f per hour, before %.3f, want more", after.HazardByAge[1].PerHour, before.HazardByAge[1].PerHour)
	}
	if code := tell("bad", catalog.Instance{StartedAt: now, SeenAt: now.Add(-time.Hour)}); code != http.StatusUnprocessableEntity {
		t.Errorf("a machine seen before its start: %d, want 422", code)
	}
	if resp, _ := s.send(t, http.MethodPut, "/v1/instances/x", "", "{}"); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("told by nobody: %d, want 401", resp.StatusCode)
	}
	if resp, _ := s.send(t, http.MethodGet, "/v1/savings?by=colour", "", ""); resp.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("savings by colour: %d, want 422", resp.StatusCode)
	}
	resp, body := s.send(t, http.MethodGet, "/v1/savings?by=month", "", "")
	var report catalog.SavingsReport
	if err := json.Unmarshal([]byte(body), &report); err != nil || resp.StatusCode != http.StatusOK || report.By != catalog.ByMonth || report.Lines == nil {
		t.Errorf("savings by month: %d %s, %v", resp.StatusCode, body, err)
	}
}
