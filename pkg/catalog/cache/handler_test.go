// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"net/http/httptest"
	"strings"
	"testing"
)

func TestWhatIsKeptIsReadBackAsItWas(t *testing.T) {
	for name, content := range map[string]string{
		"nothing":                   "",
		"a short answer, as it is":  `{"a":1}`,
		"a long answer, compressed": strings.Repeat(`{"a":1},`, 10_000),
		"what begins like a header": "Etag:x\n\n\n",
	} {
		t.Run(name, func(t *testing.T) {
			a := &answer{status: 200, header: []line{{"Etag", []string{`"x:y"`}}, {"Link", []string{"</a>; rel=next"}}}, content: []byte(content)}
			kept := a.pack().encode()
			if packed := len(kept) < len(content)/5; packed != (len(content) >= leastPacked) {
				t.Errorf("%d bytes are kept of %d", len(kept), len(content))
			}
			back := decode(kept)
			if back == nil || back.status != 200 || len(back.header) != 2 || back.header[0].values[0] != `"x:y"` || back.header[1].values[0] != "</a>; rel=next" {
				t.Fatalf("%+v", back)
			}
			w := httptest.NewRecorder()
			if back.write(w); w.Body.String() != content {
				t.Errorf("%d bytes came back of %d", w.Body.Len(), len(content))
			}
		})
	}
}

func TestWhatIsNotOursInRedisIsNoAnswer(t *testing.T) {
	whole := string((&answer{status: 200, content: []byte(strings.Repeat("x", 2*leastPacked))}).pack().encode())
	for name, text := range map[string]string{
		"nothing": "", "no status": "x\n\n", "no end of the headers": "200\nEtag:x\n", "a mark that is not known": "200 gzip\n\nx",
		"a content that is cut off": whole[:len(whole)-3], "a content that is not compressed": "200 s2\n\nplain",
		"a content that claims to be larger than any": "200 s2\n\n\xff\xff\xff\xff\x0f", "no content though it is compressed": "200 s2\n\n",
	} {
		if a := decode([]byte(text)); a != nil {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

func FuzzAnyTextInRedisIsAnAnswerOrNone(f *testing.F) {
	f.Add([]byte("200\nEtag:x\n\n{}"))
	f.Add((&answer{status: 200, content: []byte(strings.Repeat("x", 2*leastPacked))}).pack().encode())
	f.Fuzz(func(_ *testing.T, text []byte) {
		if a := decode(text); a != nil {
			a.write(httptest.NewRecorder())
		}
	})
}
