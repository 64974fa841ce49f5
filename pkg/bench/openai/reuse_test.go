// SPDX-License-Identifier: Apache-2.0

package openai_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spotbench/spotbench/pkg/bench/openai"
)

// As uvicorn does: [DONE] and the end of the body are two writes.
func TestConnectionIsReusedWhenDoneAndEndComeApart(t *testing.T) {
	var conns atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: [DONE]\n\n")
		_ = http.NewResponseController(w).Flush()
		time.Sleep(time.Millisecond)
	}))
	s.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			conns.Add(1)
		}
	}
	s.Start()
	defer s.Close()
	c := openai.New(s.URL, openai.Completions, "", 1, func() {})
	for range 50 {
		if _, err := c.Complete(context.Background(), openai.Request{Model: "m", MaxTokens: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if conns.Load() != 1 {
		t.Errorf("%d connections for 50 requests one after the other, want 1", conns.Load())
	}
}
