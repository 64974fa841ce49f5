// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericfilters "k8s.io/apiserver/pkg/server/filters"
	apiserveroptions "k8s.io/apiserver/pkg/server/options"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/kubernetes/cmd/kube-scheduler/app/config"

	"github.com/spotbench/spotbench/pkg/placement/snapshot"
)

// shutdownTimeout bounds answers that are under way when the process ends.
const shutdownTimeout = 5 * time.Second

// serveSnapshots serves the snapshot over HTTPS until ctx ends. kube-scheduler's own
// port takes no handlers of others, so that this is a second one, with the
// certificate, the authentication and the authorization of the first.
func serveSnapshots(ctx context.Context, c *config.CompletedConfig, snapshots http.Handler, address string) error {
	listener, _, err := apiserveroptions.CreateListener("tcp", address, net.ListenConfig{})
	if err != nil {
		return fmt.Errorf("--snapshot-address %s: %w; give a free address such as 127.0.0.1:10261, or an empty one to serve no snapshots", address, err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET "+snapshot.Path, snapshots)

	resolver := &request.RequestInfoFactory{}
	handler := filters.WithAuthorization(mux, c.Authorization.Authorizer, scheme.Codecs)
	handler = filters.WithAuthentication(handler, c.Authentication.Authenticator, filters.Unauthorized(scheme.Codecs), nil, nil)
	handler = filters.WithRequestInfo(handler, resolver)
	handler = filters.WithCacheControl(handler)
	handler = genericfilters.WithPanicRecovery(handler, resolver)

	serving := *c.SecureServing
	serving.Listener = listener
	if _, _, err := serving.Serve(handler, shutdownTimeout, ctx.Done()); err != nil {
		_ = listener.Close()
		return fmt.Errorf("serving snapshots: %w", err)
	}
	return nil
}
