// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"math/rand/v2"
	"strings"
)

// syllables make words that no server has seen together before.
var syllables = strings.Fields("ba be bi bo bu da de di do du ka ke ki ko ku la le li lo lu ma me mi mo mu na ne ni no nu ra re ri ro ru sa se si so su ta te ti to tu")

// Streams of prompts: a warm-up must not put a measured prompt into a server's
// prefix cache.
const (
	measured uint64 = iota
	warming
)

// prompt is words many words, the same for the same arguments on every machine. It
// begins differently for each, so that no prefix cache helps.
func prompt(seed, stream uint64, concurrency, id, words int) string {
	r := rand.New(rand.NewPCG(seed, stream<<63|uint64(concurrency)<<32|uint64(id))) //nolint:gosec // repeatable, not secret
	var b strings.Builder
	for i := range words {
		if i > 0 {
			b.WriteByte(' ')
		}
		for range 2 {
			b.WriteString(syllables[r.IntN(len(syllables))])
		}
	}
	return b.String()
}
