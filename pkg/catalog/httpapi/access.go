// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"errors"
	"math"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/auth"
	"github.com/spotbench/spotbench/pkg/catalog/filter"
)

// open are the addresses that anybody may ask whatever reads need: those that
// probes use, and the API's description.
var open = map[string]bool{"/healthz": true, "/readyz": true, "/openapi.json": true, "/openapi.yaml": true, "/openapi-3.0.json": true, "/openapi-3.0.yaml": true}

// tooMany is the problem of a caller who asks too often.
const tooMany = "too many requests; ask again after Retry-After seconds"

// admit says whether a request may go on before its operation decides about it, and with
// which context: reads are for everybody, unless the catalog was told otherwise, and nobody
// asks too often.
func (a *api) admit(w http.ResponseWriter, r *http.Request) (ctx context.Context, ok bool) {
	ctx = r.Context()
	if open[r.URL.Path] {
		return ctx, true
	}
	read := r.Method == http.MethodGet || r.Method == http.MethodHead
	caller := address(r.RemoteAddr)
	if a.readers {
		who, wait, err := a.allow(r.Context(), caller, r.Header.Get("Authorization"), catalog.Reader)
		if err != nil {
			status, detail := a.refusal(err)
			if longer, ok := a.limits.Take(caller); !ok {
				status, detail, wait = http.StatusTooManyRequests, tooMany, max(wait, longer)
			}
			if status == http.StatusTooManyRequests {
				w.Header().Set("Retry-After", seconds(wait))
			}
			if status == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", auth.Challenge)
				w.Header().Add("WWW-Authenticate", `Basic realm="spotbench-catalog", charset="UTF-8"`) // for browsers
			}
			writeProblem(w, status, detail)
			return ctx, false
		}
		caller, ctx = who.User, catalog.Within(ctx, who.Namespaces)
	}
	if !read {
		return ctx, true // its operation names the caller
	}
	if wait, ok := a.limits.Take(caller); !ok {
		w.Header().Set("Retry-After", seconds(wait))
		writeProblem(w, http.StatusTooManyRequests, tooMany)
		return ctx, false
	}
	return ctx, true
}

// allow asks the guard, which may ask others: so not for an address that has shown too
// many tokens that are not valid. That is refused by 429; it may ask again after wait.
func (a *api) allow(ctx context.Context, from, authorization string, need catalog.Role) (who auth.Identity, wait time.Duration, err error) {
	if wait, exhausted := a.guesses.Exhausted(from); exhausted && authorization != "" {
		return who, wait, &auth.Denied{Status: http.StatusTooManyRequests, Detail: tooMany}
	}
	who, err = a.guard.Allow(ctx, authorization, need)
	var denied *auth.Denied
	if authorization != "" && errors.As(err, &denied) && denied.Status == http.StatusUnauthorized {
		a.guesses.Take(from)
	}
	return who, 0, err
}

// refusal is what a caller is told whom the guard does not let in.
func (a *api) refusal(err error) (status int, detail string) {
	status, detail = http.StatusServiceUnavailable, "the caller cannot be checked now; try again"
	var denied *auth.Denied
	if errors.As(err, &denied) {
		status, detail = denied.Status, denied.Detail
	}
	a.metrics.denied.WithLabelValues(http.StatusText(status)).Inc()
	if status >= http.StatusInternalServerError {
		a.log.Error("a caller could not be checked", "err", errors.Unwrap(err))
	}
	return status, detail
}

// require lets callers of a role pass, before their body is read. What they write
// is filed under their name.
func (a *api) require(role catalog.Role) huma.Middlewares {
	return huma.Middlewares{func(ctx huma.Context, next func(huma.Context)) {
		caller := address(ctx.RemoteAddr())
		who, wait, err := a.allow(ctx.Context(), caller, ctx.Header("Authorization"), role)
		if who.User != "" {
			caller = who.User
		}
		longer, ok := a.limits.Take(caller)
		switch {
		case !ok:
			ctx.SetHeader("Retry-After", seconds(max(wait, longer)))
			_ = huma.WriteErr(a.huma, ctx, http.StatusTooManyRequests, tooMany) // the caller is gone if this fails
		case err != nil:
			status, detail := a.refusal(err)
			a.log.Warn("a request was refused", "operation", ctx.Operation().OperationID, "caller", caller, "remote", ctx.RemoteAddr(), "status", status)
			switch status {
			case http.StatusUnauthorized:
				ctx.SetHeader("WWW-Authenticate", auth.Challenge)
			case http.StatusTooManyRequests:
				ctx.SetHeader("Retry-After", seconds(wait))
			}
			_ = huma.WriteErr(a.huma, ctx, status, detail)
		default:
			target := ctx.URL()
			next(huma.WithContext(ctx, catalog.Writing(catalog.Within(ctx.Context(), who.Namespaces), catalog.AuditEntry{
				Caller: who.User, Operation: ctx.Operation().OperationID, Target: target.RequestURI(), Remote: address(ctx.RemoteAddr())})))
		}
	}}
}

func seconds(wait time.Duration) string {
	return strconv.Itoa(max(1, int(math.Ceil(wait.Seconds()))))
}

// address is where a request came from, without the port.
func address(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return remote
	}
	return host
}

// madeKey is a key with its secret, which nobody sees again.
type madeKey struct {
	catalog.APIKey
	Key string `json:"key" doc:"The key itself; it is not shown again"`
}

// OfKey is the path of a key; it is exported as OfRun is.
type OfKey struct {
	ID string `path:"id" minLength:"1" maxLength:"63" doc:"Name of the key" example:"ci"`
}

func (a *api) administer(id, method, path, summary string, statuses ...int) huma.Operation {
	op := a.write(id, method, path, summary)
	op.Errors, op.Middlewares = append(op.Errors, statuses...), a.require(catalog.Admin)
	return op
}

func (a *api) registerAccess() {
	huma.Register(a.huma, a.administer("list-keys", http.MethodGet, "/v1/keys", "Every API key, without its secret"), func(ctx context.Context, _ *struct{}) (*body[catalog.Page[catalog.APIKey]], error) {
		keys, err := a.store.ListKeys(ctx)
		if keys == nil {
			keys = []catalog.APIKey{}
		}
		return &body[catalog.Page[catalog.APIKey]]{catalog.Page[catalog.APIKey]{Items: keys}}, a.problem(err)
	})
	create := a.administer("create-key", http.MethodPut, "/v1/keys/{id}", "Make an API key", http.StatusConflict)
	create.DefaultStatus = http.StatusCreated
	create.Description = "The answer is the only one that has the key itself. A name is used once, also after its key was revoked."
	huma.Register(a.huma, create, func(ctx context.Context, in *struct {
		OfKey
		Body struct {
			Role       catalog.Role       `json:"role" enum:"read,write,admin"`
			Namespaces catalog.Namespaces `json:"namespaces,omitempty" nullable:"false" minItems:"1" maxItems:"32" doc:"Namespaces whose runs it may see and write; without, all. A key of the role admin has none"`
			ExpiresAt  time.Time          `json:"expiresAt" doc:"Within two years"`
		}
	}) (*body[madeKey], error) {
		text, hash := auth.NewKey(in.ID)
		entry, _ := catalog.WritingOf(ctx)
		key, err := a.store.CreateKey(ctx, catalog.APIKey{ID: in.ID, Role: in.Body.Role, Namespaces: in.Body.Namespaces, ExpiresAt: in.Body.ExpiresAt, CreatedBy: entry.Caller}, hash)
		if errors.Is(err, catalog.ErrChanged) {
			return nil, huma.Error409Conflict(err.Error())
		}
		return &body[madeKey]{madeKey{key, text}}, a.problem(err)
	})
	rotate := a.administer("rotate-key", http.MethodPost, "/v1/keys/{id}/rotate", "Give an API key a new secret")
	rotate.Description = "The old secret works on for the overlap, so that its users can be changed over one by one. " +
		"Sent again with the same Idempotency-Key, because the answer was lost, it is still the same rotation: there is another new secret, and the old one works on."
	huma.Register(a.huma, rotate, func(ctx context.Context, in *struct {
		OfKey
		Rotation string `header:"Idempotency-Key" maxLength:"128" doc:"Name of this rotation, for sending it again"`
		Body     struct {
			ExpiresAt      time.Time `json:"expiresAt" doc:"Within two years"`
			OverlapSeconds int64     `json:"overlapSeconds,omitempty" minimum:"0" maximum:"2592000" doc:"How long the old secret works on, at most 30 days"`
		}
	}) (*body[madeKey], error) {
		text, hash := auth.NewKey(in.ID)
		key, err := a.store.RotateKey(ctx, in.ID, hash, in.Body.ExpiresAt, time.Duration(in.Body.OverlapSeconds)*time.Second, in.Rotation)
		return &body[madeKey]{madeKey{key, text}}, a.problem(err)
	})
	revoke := a.administer("revoke-key", http.MethodDelete, "/v1/keys/{id}", "End an API key for good")
	revoke.DefaultStatus = http.StatusNoContent
	revoke.Description = "It works for at most ten seconds more."
	huma.Register(a.huma, revoke, func(ctx context.Context, in *OfKey) (*struct{}, error) {
		return nil, a.problem(a.store.RevokeKey(ctx, in.ID))
	})
	huma.Register(a.huma, a.administer("list-audit", http.MethodGet, "/v1/audit", "The log of writes, the newest first"), func(ctx context.Context, in *struct {
		Caller    string    `query:"caller" maxLength:"512" doc:"Who wrote"`
		Since     time.Time `query:"since" doc:"At or after this time"`
		Before    time.Time `query:"before" doc:"Before this time"`
		Order     string    `query:"order" enum:"newest,oldest,desc,asc" default:"newest" doc:"Which come first; newest is the same as desc, oldest the same as asc"`
		Limit     int       `query:"limit" minimum:"1" maximum:"500" default:"50" doc:"Most items on the page"`
		PageToken string    `query:"pageToken" maxLength:"2048" doc:"nextPageToken of the page before, for the same filters"`
	}) (*body[catalog.Page[catalog.AuditEntry]], error) {
		page, err := a.store.ListAudit(ctx, catalog.AuditQuery{Caller: in.Caller, Since: in.Since, Before: in.Before, OldestFirst: filter.Ascending(in.Order), Limit: in.Limit, PageToken: in.PageToken})
		return &body[catalog.Page[catalog.AuditEntry]]{page}, a.problem(err)
	})
}
