// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
)

// gcs is a bucket of Google Cloud Storage, by its JSON API. The five requests that
// checkpoints need of it are a small part of Google's client, which brings gRPC's xDS and
// OpenTelemetry along: a tenth of the memory that the agent takes of its node.
type gcs struct {
	client *http.Client
	origin string // scheme and host
	bucket string
}

const (
	gcsOrigin = "https://storage.googleapis.com"
	gcsScope  = "https://www.googleapis.com/auth/devstorage.read_write"
	// gcsAttempts are made of a request that the store, or what lies before it, failed.
	gcsAttempts = 4
)

// openGCS finds the credentials as every client of Google's does. STORAGE_EMULATOR_HOST
// names an emulator, which takes none.
func openGCS(ctx context.Context, bucket string) (gcs, error) {
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second,
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		MaxIdleConnsPerHost: 16, IdleConnTimeout: 90 * time.Second, ResponseHeaderTimeout: answerWithin,
		// A connection that died silently would keep every request until TCP gives it up.
		HTTP2:              &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 5 * time.Second},
		DisableCompression: true, // what is stored is compressed already
	}
	if emulator := os.Getenv("STORAGE_EMULATOR_HOST"); emulator != "" {
		if !strings.Contains(emulator, "://") {
			emulator = "http://" + emulator
		}
		return gcs{&http.Client{Transport: transport}, strings.TrimSuffix(emulator, "/"), bucket}, nil
	}
	// Tokens are asked for beyond the context of the request that needs one.
	ctx = context.WithValue(context.WithoutCancel(ctx), oauth2.HTTPClient, &http.Client{Transport: transport, Timeout: answerWithin})
	credentials, err := google.FindDefaultCredentials(ctx, gcsScope)
	if err != nil {
		return gcs{}, err
	}
	return gcs{&http.Client{Transport: &oauth2.Transport{Source: credentials.TokenSource, Base: transport}}, gcsOrigin, bucket}, nil
}

// gcsError is an answer that is no success.
type gcsError struct {
	status  int
	message string
}

func (e *gcsError) Error() string {
	return strings.TrimSuffix(fmt.Sprintf("%d %s: %s", e.status, http.StatusText(e.status), e.message), ": ")
}

// passing says whether the same request may succeed a moment later.
func (e *gcsError) passing() bool {
	return e.status == http.StatusRequestTimeout || e.status == http.StatusTooManyRequests || e.status >= 500
}

func gcsStatus(err error) int {
	if failure, ok := errors.AsType[*gcsError](err); ok {
		return failure.status
	}
	return 0
}

// do makes a request, again if need be, and has use read a good answer. Every request here
// may be repeated: one that creates does so only where there is nothing yet.
func (g gcs) do(ctx context.Context, method, path string, query url.Values, body gcsBody, use func(*http.Response) error) error {
	once := func() error {
		r, err := http.NewRequestWithContext(ctx, method, g.origin+path+"?"+query.Encode(), body.reader())
		if err != nil {
			return backoff.Permanent(err)
		}
		if body.kind != "" {
			r.Header.Set("Content-Type", body.kind)
			r.ContentLength = int64(len(body.head) + len(body.data) + len(body.tail))
			r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(body.reader()), nil }
		}
		response, err := g.client.Do(r)
		if refused, ok := errors.AsType[*oauth2.RetrieveError](err); ok && refused.Response != nil && refused.Response.StatusCode < 500 {
			return backoff.Permanent(err)
		}
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode/100 == 2 {
			return use(response)
		}
		failure := refusal(response)
		if !failure.passing() {
			return backoff.Permanent(failure)
		}
		return failure
	}
	pauses := backoff.NewExponentialBackOff(backoff.WithInitialInterval(200*time.Millisecond), backoff.WithMaxInterval(2*time.Second))
	return backoff.Retry(once, backoff.WithContext(backoff.WithMaxRetries(pauses, gcsAttempts-1), ctx))
}

// gcsBody is an object on its way, between what says so: it is large, and not copied.
type gcsBody struct {
	kind             string
	head, data, tail []byte
}

func (b gcsBody) reader() io.Reader {
	if b.kind == "" {
		return http.NoBody
	}
	return io.MultiReader(bytes.NewReader(b.head), bytes.NewReader(b.data), bytes.NewReader(b.tail))
}

// gcsObject is a body that the store refuses unless it arrives as it was sent.
func gcsObject(name string, data []byte) (gcsBody, error) {
	sum := binary.BigEndian.AppendUint32(nil, crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))
	about, err := json.Marshal(map[string]string{"name": name, "contentType": "application/octet-stream", "crc32c": base64.StdEncoding.EncodeToString(sum)})
	if err != nil {
		return gcsBody{}, err
	}
	var text bytes.Buffer
	parts := multipart.NewWriter(&text)
	part, err := parts.CreatePart(textproto.MIMEHeader{"Content-Type": {"application/json"}})
	if err != nil {
		return gcsBody{}, err
	}
	if _, err := part.Write(about); err != nil {
		return gcsBody{}, err
	}
	if _, err := parts.CreatePart(textproto.MIMEHeader{"Content-Type": {"application/octet-stream"}}); err != nil {
		return gcsBody{}, err
	}
	head := text.Len()
	if err := parts.Close(); err != nil {
		return gcsBody{}, err
	}
	return gcsBody{"multipart/related; boundary=" + parts.Boundary(), text.Bytes()[:head], data, text.Bytes()[head:]}, nil
}

// drain reads an answer of no interest to its end, so that the connection is kept.
func drain(response *http.Response) error {
	_, err := io.Copy(io.Discard, response.Body)
	return err
}

// refusal is what the store says, in its own words where it has any.
func refusal(response *http.Response) *gcsError {
	text, _ := io.ReadAll(io.LimitReader(response.Body, 4<<10))
	var said struct {
		Error struct{ Message string }
	}
	if json.Unmarshal(text, &said) == nil && said.Error.Message != "" {
		return &gcsError{response.StatusCode, said.Error.Message}
	}
	return &gcsError{response.StatusCode, strings.TrimSpace(string(text))}
}

func (g gcs) objects() string { return "/storage/v1/b/" + url.PathEscape(g.bucket) + "/o" }

func (g gcs) object(name string) string { return g.objects() + "/" + url.PathEscape(name) }

func (g gcs) put(ctx context.Context, name string, data []byte) error {
	return g.upload(ctx, name, data, url.Values{})
}

func (g gcs) create(ctx context.Context, name string, data []byte) error {
	err := g.upload(ctx, name, data, url.Values{"ifGenerationMatch": {"0"}})
	if gcsStatus(err) == http.StatusPreconditionFailed {
		return fmt.Errorf("%w: %w", errExists, err)
	}
	return err
}

func (g gcs) upload(ctx context.Context, name string, data []byte, query url.Values) error {
	body, err := gcsObject(name, data)
	if err != nil {
		return err
	}
	ctx, more, end := patience(ctx)
	defer end()
	more(int64(len(data)))
	query.Set("uploadType", "multipart")
	return because(ctx, g.do(ctx, http.MethodPost, "/upload"+g.objects(), query, body, drain))
}

func (g gcs) get(ctx context.Context, name string, buffer []byte, limit int64) ([]byte, error) {
	ctx, more, end := patience(ctx)
	defer end()
	had := len(buffer)
	err := g.do(ctx, http.MethodGet, g.object(name), url.Values{"alt": {"media"}}, gcsBody{}, func(response *http.Response) error {
		if response.ContentLength < 0 {
			return backoff.Permanent(fmt.Errorf("the length of object %s is not said", name))
		}
		if response.ContentLength > limit {
			return backoff.Permanent(tooLong(name, response.ContentLength))
		}
		more(response.ContentLength)
		var err error
		buffer, err = fill(buffer[:had], response.Body, int(response.ContentLength))
		return err
	})
	if gcsStatus(err) == http.StatusNotFound {
		return nil, missing(name)
	}
	return buffer, because(ctx, err)
}

func (g gcs) list(ctx context.Context, prefix string, each func(object)) error {
	return g.pages(ctx, url.Values{"prefix": {prefix}}, func(p gcsPage) {
		for _, o := range p.Items {
			each(object{name: o.Name, size: o.Size, modified: o.Updated})
		}
	})
}

func (g gcs) below(ctx context.Context, prefix string) ([]string, error) {
	var names []string
	err := g.pages(ctx, url.Values{"prefix": {prefix}, "delimiter": {"/"}}, func(p gcsPage) {
		for _, name := range p.Prefixes {
			names = append(names, strings.TrimPrefix(name, prefix))
		}
	})
	return names, err
}

// gcsPage is a part of a list.
type gcsPage struct {
	Items []struct {
		Name    string
		Size    int64 `json:",string"`
		Updated time.Time
	}
	Prefixes      []string
	NextPageToken string
}

func (g gcs) pages(ctx context.Context, query url.Values, each func(gcsPage)) error {
	ctx, more, end := patience(ctx)
	defer end()
	query.Set("fields", "items(name,size,updated),prefixes,nextPageToken")
	for {
		more(0)
		var page gcsPage
		if err := g.do(ctx, http.MethodGet, g.objects(), query, gcsBody{}, func(response *http.Response) error {
			page = gcsPage{}
			return json.NewDecoder(response.Body).Decode(&page)
		}); err != nil {
			return because(ctx, err)
		}
		each(page)
		if page.NextPageToken == "" {
			return nil
		}
		query.Set("pageToken", page.NextPageToken)
	}
}

func (g gcs) remove(ctx context.Context, name string) error {
	ctx, _, end := patience(ctx)
	defer end()
	err := g.do(ctx, http.MethodDelete, g.object(name), nil, gcsBody{}, drain)
	if gcsStatus(err) == http.StatusNotFound {
		return nil
	}
	return because(ctx, err)
}

// settle has nothing to do: the store answers when it has the object.
func (g gcs) settle(context.Context, []string) error { return nil }

func (g gcs) close() error {
	g.client.CloseIdleConnections()
	return nil
}
