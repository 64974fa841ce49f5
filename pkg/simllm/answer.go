// SPDX-License-Identifier: Apache-2.0

package simllm

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// words are what the simulated model says; a token is one word.
var words = strings.Fields("this text is simulated and means nothing at all it only keeps time")

// format is how one of the two endpoints writes its answers.
type format interface {
	prefix() string
	// object is the type of a whole answer or of a chunk of one.
	object(chunk bool) string
	choice(text string, chunk bool, finish *string) map[string]any
}

type textCompletion struct{}

func (textCompletion) prefix() string     { return "cmpl" }
func (textCompletion) object(bool) string { return "text_completion" }
func (textCompletion) choice(text string, _ bool, finish *string) map[string]any {
	return map[string]any{"index": 0, "text": text, "logprobs": nil, "finish_reason": finish}
}

type chatCompletion struct{}

func (chatCompletion) prefix() string { return "chatcmpl" }
func (chatCompletion) object(chunk bool) string {
	if chunk {
		return "chat.completion.chunk"
	}
	return "chat.completion"
}

func (chatCompletion) choice(text string, chunk bool, finish *string) map[string]any {
	part := "message"
	if chunk {
		part = "delta"
	}
	return map[string]any{"index": 0, part: map[string]any{"role": "assistant", "content": text}, "finish_reason": finish}
}

// answer is one completion on its way out.
type answer struct {
	id      string
	model   string
	created int64
	format  format
	pace    Pace
	// tokens to make and prompt tokens that were read.
	tokens, prompt int
	// usage asks for a last chunk with the token counts.
	usage bool
}

// send makes every token at its time, and says how many it made when the client
// went away.
func (a answer) send(ctx context.Context, w http.ResponseWriter, stream bool) (int, error) {
	if stream {
		return a.stream(ctx, w)
	}
	admitted := time.Now()
	if err := sleepUntil(ctx, admitted.Add(a.pace.Due(a.tokens-1))); err != nil {
		return 0, err
	}
	var text strings.Builder
	for i := range a.tokens {
		text.WriteString(token(i))
	}
	whole := a.envelope(false, a.format.choice(text.String(), false, a.finish(a.tokens-1)))
	whole["usage"] = a.counts()
	writeJSON(w, http.StatusOK, whole)
	return a.tokens, nil
}

func (a answer) stream(ctx context.Context, w http.ResponseWriter) (int, error) {
	admitted := time.Now()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w)
	for i := range a.tokens {
		if err := sleepUntil(ctx, admitted.Add(a.pace.Due(i))); err != nil {
			return i, err
		}
		if err := event(w, a.envelope(true, a.format.choice(token(i), true, a.finish(i)))); err != nil {
			return i, err
		}
		if err := flush.Flush(); err != nil {
			return i, fmt.Errorf("send token %d: %w", i, err)
		}
	}
	if a.usage {
		last := a.envelope(true)
		last["usage"] = a.counts()
		if err := event(w, last); err != nil {
			return a.tokens, err
		}
	}
	if _, err := fmt.Fprint(w, "data: [DONE]\n\n"); err != nil {
		return a.tokens, fmt.Errorf("send the end of the stream: %w", err)
	}
	return a.tokens, nil
}

func (a answer) envelope(chunk bool, choices ...map[string]any) map[string]any {
	if choices == nil {
		choices = []map[string]any{}
	}
	return map[string]any{
		"id": a.id, "object": a.format.object(chunk), "created": a.created, "model": a.model,
		"system_fingerprint": Fingerprint, "choices": choices,
	}
}

func (a answer) counts() map[string]int {
	return map[string]int{"prompt_tokens": a.prompt, "completion_tokens": a.tokens, "total_tokens": a.prompt + a.tokens}
}

// finish is why the answer ends with token i; nil when it does not.
func (a answer) finish(i int) *string {
	if i < a.tokens-1 {
		return nil
	}
	reason := "length"
	return &reason
}

func token(i int) string { return words[i%len(words)] + " " }

func event(w http.ResponseWriter, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write an event: %w", err)
	}
	if _, err := fmt.Fprintf(w, "data: %s\n\n", b); err != nil {
		return fmt.Errorf("send an event: %w", err)
	}
	return nil
}

func sleepUntil(ctx context.Context, at time.Time) error {
	wait := time.Until(at)
	if wait <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
