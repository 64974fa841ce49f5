// SPDX-License-Identifier: Apache-2.0

// Package openai sends one completion to an OpenAI-compatible server and times
// its tokens as they stream back.
package openai

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spotbench/spotbench/pkg/bench/sse"
	"github.com/spotbench/spotbench/pkg/version"
)

// Endpoint is which of the API's two completions to measure.
type Endpoint string

// The endpoints.
const (
	Completions Endpoint = "completions"
	Chat        Endpoint = "chat"
)

// Request is one completion to ask for.
type Request struct {
	Model  string
	Prompt string
	// MaxTokens is how many tokens to make; exactly so many with IgnoreEOS, an
	// extension of vLLM and others.
	MaxTokens int
	IgnoreEOS bool
}

// Sample is what one finished completion measured.
type Sample struct {
	// TTFT is from sending the request to its first token.
	TTFT time.Duration
	// ITLs are the times between each chunk with tokens and the one before it.
	ITLs []time.Duration
	// Latency is from sending the request to its last token: TTFT plus all ITLs.
	Latency time.Duration
	// InputTokens and OutputTokens are the server's own counts; 0 when it sent none.
	InputTokens, OutputTokens int
	// Fingerprint is the server's system_fingerprint.
	Fingerprint string
}

// Client talks to one server.
type Client struct {
	base     string
	endpoint Endpoint
	key      string
	http     *http.Client
	// onToken is told of every chunk with tokens as it comes.
	onToken func()
}

// New makes a client of the server at base ("http://127.0.0.1:8080", without
// /v1) that keeps up to connections open. key, when not empty, is sent as bearer
// token. onToken is called for every chunk with tokens.
func New(base string, endpoint Endpoint, key string, connections int, onToken func()) *Client {
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, MaxIdleConns: connections, MaxIdleConnsPerHost: connections,
		IdleConnTimeout: time.Minute, DisableCompression: true,
	}
	return &Client{base: strings.TrimRight(base, "/"), endpoint: endpoint, key: key, http: &http.Client{Transport: transport}, onToken: onToken}
}

// Close closes the connections that are idle.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// ErrNoModel is returned by Ready when the server is up and lacks the model, which
// waiting does not change.
var ErrNoModel = errors.New("the server does not serve the model")

// ErrRefused is returned by Ready when the server wants another key, which waiting
// does not change.
var ErrRefused = errors.New("the server refuses access; set OPENAI_API_KEY to a key of its own")

// Ready returns nil when the server lists the model.
func (c *Client) Ready(ctx context.Context, model string) error {
	resp, err := c.do(ctx, http.MethodGet, "/v1/models", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var list struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, sse.MaxEvent)).Decode(&list); err != nil {
		return fmt.Errorf("GET %s/v1/models: not the JSON of a list of models: %w", c.base, err)
	}
	ids := make([]string, 0, len(list.Data))
	for _, m := range list.Data {
		ids = append(ids, m.ID)
	}
	if !slices.Contains(ids, model) {
		return fmt.Errorf("%w %q: it has %q; set --model to one of them", ErrNoModel, model, ids)
	}
	return nil
}

// chunk is the part of a streamed answer that is measured.
type chunk struct {
	Fingerprint string `json:"system_fingerprint"`
	Choices     []struct {
		FinishReason *string `json:"finish_reason"`
		Delta        struct {
			Content          string `json:"content"`
			ReasoningContent string `json:"reasoning_content"`
			Reasoning        string `json:"reasoning"`
		} `json:"delta"`
	} `json:"choices"`
	Usage *struct {
		PromptTokens     int `json:"prompt_tokens"`
		CompletionTokens int `json:"completion_tokens"`
	} `json:"usage"`
	Error json.RawMessage `json:"error"`
}

// Complete asks for one completion and reads it to its end. A stream that stops
// before the server said that it is done is an error and no short answer.
func (c *Client) Complete(ctx context.Context, q Request) (Sample, error) {
	body, path, err := c.encode(q)
	if err != nil {
		return Sample{}, err
	}
	sent := time.Now()
	resp, err := c.do(ctx, http.MethodPost, path, body)
	if err != nil {
		return Sample{}, err
	}
	defer resp.Body.Close()
	var s Sample
	m := meter{sent: sent, chat: c.endpoint == Chat, onToken: c.onToken}
	events := sse.NewReader(resp.Body)
	for {
		data, err := events.Next()
		if errors.Is(err, io.EOF) && m.finished {
			break // some servers leave out [DONE]
		}
		if errors.Is(err, io.EOF) {
			return Sample{}, fmt.Errorf("POST %s%s: the stream ended after %d chunks, before the server said it was done", c.base, path, m.chunks)
		}
		if err != nil {
			return Sample{}, fmt.Errorf("POST %s%s: %w", c.base, path, err)
		}
		if data == "[DONE]" {
			// Only a body that was read to its end gives its connection back; else every
			// request pays for a new one, within its time to first token.
			_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, sse.MaxEvent))
			break
		}
		if err := m.take(data, time.Now(), &s); err != nil {
			return Sample{}, fmt.Errorf("POST %s%s: %w", c.base, path, err)
		}
	}
	if m.chunks == 0 {
		return Sample{}, fmt.Errorf("POST %s%s: the stream had no token", c.base, path)
	}
	if s.OutputTokens == 0 {
		s.OutputTokens = m.chunks
	}
	return s, nil
}

func (c *Client) encode(q Request) (body []byte, path string, err error) {
	fields := map[string]any{
		"model": q.Model, "max_tokens": q.MaxTokens, "temperature": 0, "stream": true,
		"stream_options": map[string]any{"include_usage": true},
	}
	if q.IgnoreEOS {
		fields["ignore_eos"] = true
	}
	path = "/v1/completions"
	if c.endpoint == Chat {
		path = "/v1/chat/completions"
		fields["messages"] = []any{map[string]any{"role": "user", "content": q.Prompt}}
	} else {
		fields["prompt"] = q.Prompt
	}
	if body, err = json.Marshal(fields); err != nil {
		return nil, "", fmt.Errorf("write the request: %w", err)
	}
	return body, path, nil
}

func (c *Client) do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%s %s%s: %w", method, c.base, path, err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "spotbench-bench-runner/"+version.Release())
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err // names method and address already
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		said, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
		err := fmt.Errorf("%s %s%s: %s: %s", method, c.base, path, resp.Status, bytes.TrimSpace(said))
		if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden {
			err = fmt.Errorf("%w: %w", ErrRefused, err)
		}
		return nil, err
	}
	return resp, nil
}

// meter turns chunks into times.
type meter struct {
	sent, last time.Time
	chat       bool
	chunks     int
	finished   bool
	onToken    func()
}

func (m *meter) take(data string, at time.Time, s *Sample) error {
	var c chunk
	if err := json.Unmarshal([]byte(data), &c); err != nil {
		return fmt.Errorf("chunk %d is not JSON: %w", m.chunks, err)
	}
	if len(c.Error) > 0 && string(c.Error) != "null" {
		return fmt.Errorf("after %d chunks the server said: %.512s", m.chunks, c.Error)
	}
	if c.Fingerprint != "" {
		s.Fingerprint = c.Fingerprint
	}
	if c.Usage != nil {
		s.InputTokens, s.OutputTokens = c.Usage.PromptTokens, c.Usage.CompletionTokens
	}
	if len(c.Choices) == 0 {
		return nil
	}
	choice := c.Choices[0]
	m.finished = m.finished || choice.FinishReason != nil
	d := choice.Delta
	// A chat opens and closes with chunks that carry no token.
	if m.chat && d.Content == "" && d.ReasoningContent == "" && d.Reasoning == "" {
		return nil
	}
	if m.chunks == 0 {
		s.TTFT = at.Sub(m.sent)
	} else {
		s.ITLs = append(s.ITLs, at.Sub(m.last))
	}
	m.chunks++
	m.last = at
	s.Latency = at.Sub(m.sent)
	m.onToken()
	return nil
}
