// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestAnAnswerIsKeptHereWhileItIsOfThePresentGenerationsAndYoung(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	kept := &answer{content: make([]byte, 100)}
	for name, tt := range map[string]struct {
		generations [2]string
		after       time.Duration
		want        *answer
	}{
		"of the present generations":     {[2]string{"a", "b"}, 9 * time.Second, kept},
		"after all were begun anew":      {[2]string{"x", "b"}, 0, nil},
		"after its own was begun anew":   {[2]string{"a", "x"}, 0, nil},
		"when it is as old as it may be": {[2]string{"a", "b"}, 11 * time.Second, nil},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLocal(1 << 20)
			l.put(&filed{question: "q", generations: [2]string{"a", "b"}, until: now.Add(10 * time.Second), answer: kept})
			if got := l.get("q", tt.generations, now.Add(tt.after)); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
			if tt.want == nil && (l.size != 0 || len(l.at) != 0 || l.order.Len() != 0) {
				t.Errorf("it takes %d bytes still", l.size)
			}
		})
	}
}

func TestWhenThereIsNoRoomThoseGoThatNobodyAskedForTheLongest(t *testing.T) {
	now := time.Now()
	const each = 1000 + len("the 1st") + overhead
	l := newLocal(3 * each)
	file := func(question string) {
		l.put(&filed{question: question, until: now.Add(time.Minute), answer: &answer{content: make([]byte, 1000)}})
	}
	there := func(question string) bool { return l.get(question, [2]string{}, now) != nil }
	file("the 1st")
	file("the 2nd")
	file("the 3rd")
	if !there("the 1st") {
		t.Fatal("there is room for three")
	}
	file("the 4th")
	if there("the 2nd") || !there("the 1st") || !there("the 3rd") || !there("the 4th") {
		t.Error("the second was asked for the longest ago, and another went")
	}
	file("the 4th")
	if l.size != 3*each {
		t.Errorf("three answers of %d take %d", each, l.size)
	}
	l.put(&filed{question: "larger than all", until: now.Add(time.Minute), answer: &answer{content: make([]byte, 4*each)}})
	if l.size != 0 || len(l.at) != 0 {
		t.Errorf("%d bytes are kept", l.size)
	}
}

func TestAPatientContextEndsAfterTheWaitAndNotBeforeSomebodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		unused := &patient{Context: t.Context()}
		time.Sleep(2 * patience)
		unused.end()
		p := &patient{Context: t.Context()}
		time.Sleep(2 * patience) // nobody waits yet
		select {
		case <-p.Done():
			t.Fatal("it ended before anybody waited")
		case <-time.After(patience / 2):
		}
		<-p.Done()
		if !errors.Is(p.Err(), context.DeadlineExceeded) {
			t.Errorf("%v", p.Err())
		}
		p.end()
	})
}
