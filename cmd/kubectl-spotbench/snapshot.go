// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"

	"github.com/spotbench/spotbench/pkg/placement/snapshot"
)

// snapshotFlags say where a snapshot comes from.
type snapshotFlags struct {
	file      string
	namespace string
	port      int
}

func (f *snapshotFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.file, "snapshot", "", "a saved snapshot, - for standard input (default: ask the scheduler)")
	f.addScheduler(flags)
}

func (f *snapshotFlags) addScheduler(flags *pflag.FlagSet) {
	flags.StringVar(&f.namespace, "scheduler-namespace", "spotbench-system", "where the scheduler runs")
	flags.IntVar(&f.port, "scheduler-port", 10261, "port of the scheduler's --snapshot-address")
}

// get reads the file, or asks the scheduler.
func (f *snapshotFlags) get(ctx context.Context, config *genericclioptions.ConfigFlags, in io.Reader) (snapshot.Snapshot, error) {
	if f.file != "" {
		return readSnapshot(f.file, in)
	}
	document, err := f.ask(ctx, config)
	if err != nil {
		return snapshot.Snapshot{}, err
	}
	s, err := snapshot.Read(document)
	if err != nil {
		return s, fmt.Errorf("what the scheduler answered: %w; scheduler and plugin may differ in version", err)
	}
	return s, nil
}

func readSnapshot(file string, in io.Reader) (snapshot.Snapshot, error) {
	var data []byte
	var err error
	if file == "-" {
		data, err = io.ReadAll(in)
	} else {
		data, err = os.ReadFile(file)
	}
	if err != nil {
		return snapshot.Snapshot{}, fmt.Errorf("--snapshot: %w", err)
	}
	s, err := snapshot.Read(data)
	if err != nil {
		return s, fmt.Errorf("%s: %w", file, err)
	}
	return s, nil
}

func snapshotCommand(config *genericclioptions.ConfigFlags, streams genericiooptions.IOStreams) *cobra.Command {
	var from snapshotFlags
	cmd := &cobra.Command{
		Use:   "snapshot",
		Short: "Save what the scheduler decides from, for explain, simulate and replay",
		Long: `Print what the scheduler decides from: nodes with their prices, risks and pods, and
the pending pods. The document has no secrets, but names and annotations of every
namespace's pods with GPUs.`,
		Example: `  kubectl spotbench snapshot > snapshot.json`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := from.get(cmd.Context(), config, streams.In)
			if err != nil {
				return err
			}
			return s.Write(streams.Out)
		},
	}
	from.addScheduler(cmd.Flags())
	return cmd
}

// howElse is the way out for users who may not ask the scheduler.
const howElse = "; an administrator can bind Role and ClusterRole spotbench-snapshot-reader to you, or give you a file of `kubectl spotbench snapshot` for --snapshot"

// ask asks the scheduler through a port forwarded to its pod. The user's credentials
// go to the scheduler itself, which asks the API server whose they are and whether
// their owner may.
func (f *snapshotFlags) ask(ctx context.Context, flags *genericclioptions.ConfigFlags) ([]byte, error) {
	config, err := flags.ToRESTConfig()
	if err != nil {
		return nil, fmt.Errorf("which cluster: %w; give --kubeconfig, or a saved snapshot with --snapshot", err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	pod, err := f.leader(ctx, client)
	if err != nil {
		return nil, err
	}
	local, stop, err := f.forward(ctx, client, config, pod)
	if err != nil {
		return nil, err
	}
	defer stop()
	return f.fetch(ctx, config, pod, local)
}

// leader is the scheduler's pod, of several the one that leads.
func (f *snapshotFlags) leader(ctx context.Context, client kubernetes.Interface) (string, error) {
	const labels = "app.kubernetes.io/name=spotbench,app.kubernetes.io/component=scheduler"
	list, err := client.CoreV1().Pods(f.namespace).List(ctx, metav1.ListOptions{LabelSelector: labels})
	if err != nil {
		return "", f.denied(fmt.Errorf("find the scheduler's pod in namespace %s: %w", f.namespace, err), err)
	}
	var running []string
	for _, pod := range list.Items {
		if pod.Status.Phase == v1.PodRunning && pod.DeletionTimestamp == nil {
			running = append(running, pod.Name)
		}
	}
	switch len(running) {
	case 0:
		return "", fmt.Errorf("no pod of the scheduler (%s) runs in namespace %s; give the right one with --scheduler-namespace", labels, f.namespace)
	case 1:
		return running[0], nil
	}
	lease, err := client.CoordinationV1().Leases(f.namespace).Get(ctx, "spotbench-scheduler", metav1.GetOptions{})
	if err != nil {
		return "", f.denied(fmt.Errorf("which of the scheduler's pods %s leads: %w", strings.Join(running, ", "), err), err)
	}
	holder := ""
	if lease.Spec.HolderIdentity != nil {
		holder, _, _ = strings.Cut(*lease.Spec.HolderIdentity, "_")
	}
	for _, name := range running {
		if name == holder {
			return name, nil
		}
	}
	return "", fmt.Errorf("none of the scheduler's pods %s leads now (the lease is held by %q); try again in a moment", strings.Join(running, ", "), holder)
}

func (f *snapshotFlags) denied(err, cause error) error {
	if apierrors.IsForbidden(cause) {
		return fmt.Errorf("%w%s", err, howElse)
	}
	return err
}

// forwardTimeout bounds the opening of the port.
const forwardTimeout = 15 * time.Second

// forward opens a local port that leads to the pod's.
func (f *snapshotFlags) forward(ctx context.Context, client kubernetes.Interface, config *rest.Config, pod string) (local uint16, stop func(), err error) {
	address := client.CoreV1().RESTClient().Post().Resource("pods").Namespace(f.namespace).Name(pod).SubResource("portforward").URL()
	dialer, err := dialer(address, config)
	if err != nil {
		return 0, nil, err
	}
	stopped, ready, failed := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	forwarder, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{fmt.Sprintf("0:%d", f.port)}, stopped, ready, io.Discard, io.Discard)
	if err != nil {
		return 0, nil, err
	}
	go func() { failed <- forwarder.ForwardPorts() }()
	ctx, cancel := context.WithTimeout(ctx, forwardTimeout)
	defer cancel()
	select {
	case <-ctx.Done():
		close(stopped)
		return 0, nil, fmt.Errorf("forward a port to the scheduler's pod %s/%s: %w; the API server may not reach the pod's node", f.namespace, pod, ctx.Err())
	case err := <-failed:
		err = fmt.Errorf("forward a port to the scheduler's pod %s/%s: %w", f.namespace, pod, err)
		if strings.Contains(err.Error(), "forbidden") {
			err = fmt.Errorf("%w%s", err, howElse)
		}
		return 0, nil, err
	case <-ready:
	}
	ports, err := forwarder.GetPorts()
	if err != nil {
		close(stopped)
		return 0, nil, err
	}
	return ports[0].Local, func() { close(stopped) }, nil
}

// dialer speaks WebSocket, and SPDY with what does not know that.
func dialer(address *url.URL, config *rest.Config) (httpstream.Dialer, error) {
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return nil, fmt.Errorf("credentials for the API server: %w", err)
	}
	old := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, address)
	websocket, err := portforward.NewSPDYOverWebsocketDialer(address, config)
	if err != nil {
		return nil, fmt.Errorf("credentials for the API server: %w", err)
	}
	return portforward.NewFallbackDialer(websocket, old, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	}), nil
}

// askTimeout bounds the scheduler's answer.
const askTimeout = 30 * time.Second

// fetch asks the scheduler at the local port, with the user's credentials. Its
// certificate is one that it made itself at its start; that it is the scheduler's pod
// at the other end is the API server's word, of which the certificate was checked.
func (f *snapshotFlags) fetch(ctx context.Context, config *rest.Config, pod string, local uint16) ([]byte, error) {
	config = rest.CopyConfig(config)
	config.Host = fmt.Sprintf("https://127.0.0.1:%d", local)
	config.APIPath, config.Timeout = "", askTimeout
	config.Insecure, config.CAFile, config.CAData, config.ServerName = true, "", nil, ""
	config.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("credentials for the scheduler: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, config.Host+snapshot.Path, nil)
	if err != nil {
		return nil, err
	}
	where := fmt.Sprintf("the scheduler's pod %s/%s, port %d", f.namespace, pod, f.port)
	response, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w; is the port that of its --snapshot-address?", where, errors.Unwrap(err))
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", where, err)
	}
	switch response.StatusCode {
	case http.StatusOK:
		return body, nil
	case http.StatusUnauthorized:
		return nil, fmt.Errorf("%s does not know your credentials (401): it takes the API server's bearer tokens and client certificates%s", where, howElse)
	case http.StatusForbidden:
		return nil, fmt.Errorf("%s says that you may not get %s (403)%s", where, snapshot.Path, howElse)
	}
	return nil, fmt.Errorf("%s answered %s: %s", where, response.Status, strings.TrimSpace(string(body)))
}
