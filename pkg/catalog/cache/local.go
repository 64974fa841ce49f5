// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"container/list"
	"sync"
	"time"
)

// local is what this process keeps of the answers: those asked for last, ready to be
// written. Whether one is still true is not decided here but by the generations that
// it was filed under.
type local struct {
	mu sync.Mutex
	// order has the answers, the one asked for last in front.
	order *list.List
	at    map[string]*list.Element
	size  int
	most  int
}

// filed is an answer under the question that it answers.
type filed struct {
	question    string
	generations [2]string
	until       time.Time
	answer      *answer
}

// overhead is about what keeping an answer takes besides its content and the question, which
// callers make as long as they like: the headers, and its places in the map and the list.
const overhead = 1 << 10

func (f *filed) size() int { return len(f.answer.content) + len(f.question) + overhead }

func newLocal(most int) *local {
	return &local{order: list.New(), at: map[string]*list.Element{}, most: most}
}

// get is the answer to a question, nil if there is none of these generations that is
// young enough.
func (l *local) get(question string, generations [2]string, now time.Time) *answer {
	l.mu.Lock()
	defer l.mu.Unlock()
	element, ok := l.at[question]
	if !ok {
		return nil
	}
	f, _ := element.Value.(*filed) // the list has no others
	if f.generations != generations || now.After(f.until) {
		l.remove(element)
		return nil
	}
	l.order.MoveToFront(element)
	return f.answer
}

// put keeps an answer, and lets go of those that nobody asked for the longest.
func (l *local) put(f *filed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if element, ok := l.at[f.question]; ok {
		l.remove(element)
	}
	l.at[f.question] = l.order.PushFront(f)
	for l.size += f.size(); l.size > l.most; {
		l.remove(l.order.Back())
	}
}

func (l *local) remove(element *list.Element) {
	f, _ := l.order.Remove(element).(*filed) // the list has no others
	delete(l.at, f.question)
	l.size -= f.size()
}
