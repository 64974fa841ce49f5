// SPDX-License-Identifier: Apache-2.0

package endpoint_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spotbench/spotbench/pkg/interruption/endpoint"
	"github.com/spotbench/spotbench/pkg/interruption/endpoint/endpointtest"
)

func TestWhyThereIsNoUsableAnswer(t *testing.T) {
	tests := map[string]struct {
		service http.HandlerFunc
		want    endpoint.Reason
		silent  bool
	}{
		"no answer in time":      {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, endpoint.Timeout, true},
		"the connection breaks":  {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, endpoint.Connection, true},
		"an answer without end":  {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(strings.Repeat("x", 300<<10))) }, endpoint.TooLong, true},
		"it wants to know who":   {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }, endpoint.Unauthorized, true},
		"it will not":            {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, endpoint.Unauthorized, true},
		"it is overloaded":       {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }, endpoint.Unavailable, false},
		"it is asked too much":   {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) }, endpoint.Unavailable, false},
		"it sends one elsewhere": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/there", http.StatusFound) }, endpoint.Status, false},
		"it does not understand": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) }, endpoint.Status, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, err := endpoint.NewClient("http://metadata/", endpointtest.Transport{Handler: tt.service})
				if err != nil {
					t.Fatal(err)
				}
				answer, err := client.Get(t.Context(), "/path", 2*time.Second, nil)
				if err == nil {
					err = answer.Unexpected("GET /path")
				}
				if got := endpoint.ReasonOf(err); got != tt.want || endpoint.Silent(err) != tt.silent {
					t.Errorf("%v: reason %s, silent %t; want %s, %t", err, got, endpoint.Silent(err), tt.want, tt.silent)
				}
			})
		})
	}
}

func TestAClockThatIsOffIsToldByTheServicesDate(t *testing.T) {
	t.Parallel()
	here := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	date := func(d time.Duration) string { return here.Add(d).Format(http.TimeFormat) }
	for name, tt := range map[string]struct {
		date       string
		took, want time.Duration
	}{
		"no Date":                          {},
		"a Date that is none":              {date: "yesterday"},
		"the same second":                  {date: date(0)},
		"a service that took two seconds":  {date: date(-2 * time.Second)},
		"this clock is ten minutes behind": {date: date(10 * time.Minute), want: 10*time.Minute + 500*time.Millisecond},
		// Of the answer's second nobody knows where in it it was made: the end of it is sure.
		"this clock is five minutes ahead":     {date: date(-5 * time.Minute), took: time.Second, want: -5*time.Minute + 2*time.Second},
		"an answer that took a minute to come": {date: date(-time.Minute), took: time.Minute},
		"a service without a clock":            {date: time.Unix(0, 0).UTC().Format(http.TimeFormat)},
		"a service that is days ahead":         {date: date(48 * time.Hour)},
	} {
		answer := endpoint.Answer{Sent: here.Add(-tt.took), Received: here, Header: http.Header{}}
		if tt.date != "" {
			answer.Header.Set("Date", tt.date)
		}
		if got := answer.ClockAhead(); got != tt.want {
			t.Errorf("%s: the service's clock is %s ahead, want %s", name, got, tt.want)
		}
	}
}
