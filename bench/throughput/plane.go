// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/spotbench/spotbench/bench/internal/proc"
	"github.com/spotbench/spotbench/pkg/localcluster/pki"
)

// loopback is where everything listens: nothing of the benchmark is reachable from
// outside the machine.
const loopback = "127.0.0.1"

// stopTimeout is how long a process has to end before it is killed.
const stopTimeout = 10 * time.Second

// process is a program that runs beside the benchmark, with its output in a file.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan error
}

// start runs a program. It ends with stop, or when the benchmark dies.
func start(dir, name, program string, args ...string) (*process, error) {
	file := filepath.Join(dir, name+".log")
	out, err := os.Create(file)
	if err != nil {
		return nil, fmt.Errorf("make the log of %s: %w", name, err)
	}
	defer out.Close()
	cmd := exec.Command(program, args...) //nolint:noctx // ended by stop, which lets it end by itself first
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = proc.DiesWithParent()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, cmd: cmd, log: file, done: make(chan error, 1)}
	go func() { p.done <- cmd.Wait() }()
	return p, nil
}

// ended says that the process is gone, with the end of its log.
func (p *process) ended() error {
	select {
	case err := <-p.done:
		p.done <- err
		return fmt.Errorf("%s ended (%w); the end of its log:\n%s", p.name, errors.Join(err, errors.New("it should be running")), p.tail())
	default:
		return nil
	}
}

// tail is the end of the log.
func (p *process) tail() string {
	const most = 3000
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-most):])
}

// stop ends the process and waits for it.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(os.Interrupt)
	select {
	case err := <-p.done:
		p.done <- err
	case <-time.After(stopTimeout):
		_ = p.cmd.Process.Kill()
		err := <-p.done
		p.done <- err
	}
}

// plane is a control plane without controllers: etcd and the API server, both the
// real ones. Each measurement has a new one, so that none starts with what another
// left.
type plane struct {
	dir        string
	kubeconfig string
	config     *rest.Config
	client     kubernetes.Interface
	processes  []*process
}

// programs are the files of the programs under test and of those they need.
type programs struct{ etcd, apiserver, stock, ours string }

// startPlane starts a control plane with its state in a new folder under dir.
func startPlane(ctx context.Context, dir string, bin programs) (*plane, error) {
	p := &plane{dir: dir}
	if err := p.start(ctx, bin); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

func (p *plane) start(ctx context.Context, bin programs) error {
	ports, err := freePorts(3)
	if err != nil {
		return err
	}
	server := "https://" + net.JoinHostPort(loopback, ports[2])
	if err := p.issue(server); err != nil {
		return err
	}
	client, peer := "http://"+net.JoinHostPort(loopback, ports[0]), "http://"+net.JoinHostPort(loopback, ports[1])
	etcd, err := start(p.dir, "etcd", bin.etcd, "--name=bench", "--data-dir="+p.file("etcd"),
		"--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=bench="+peer,
		// The disk is not what is measured.
		"--unsafe-no-fsync", "--log-level=warn")
	if err != nil {
		return err
	}
	p.processes = append(p.processes, etcd)
	apiserver, err := start(p.dir, "kube-apiserver", bin.apiserver,
		"--bind-address="+loopback, "--advertise-address="+loopback, "--secure-port="+ports[2], "--etcd-servers="+client,
		"--tls-cert-file="+p.file("apiserver.crt"), "--tls-private-key-file="+p.file("apiserver.key"), "--client-ca-file="+p.file("ca.crt"),
		"--service-account-key-file="+p.file("service-account.crt"), "--service-account-signing-key-file="+p.file("service-account.key"),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local", "--service-cluster-ip-range=10.0.0.0/24",
		"--authorization-mode=RBAC", "--endpoint-reconciler-type=none",
		// No kubelet and no controller would take the taints of new nodes away or
		// make the service accounts of pods.
		"--disable-admission-plugins=ServiceAccount,TaintNodesByCondition",
		// Whatever limits requests must be the same for both, so nothing does.
		"--enable-priority-and-fairness=false", "--max-requests-inflight=0", "--max-mutating-requests-inflight=0",
		"--profiling=false")
	if err != nil {
		return err
	}
	p.processes = append(p.processes, apiserver)
	return p.ready(ctx)
}

func (p *plane) file(name string) string { return filepath.Join(p.dir, name) }

// issue writes certificates and the kubeconfig.
func (p *plane) issue(server string) error {
	ca, err := pki.NewAuthority("throughput")
	if err != nil {
		return err
	}
	private, public, err := pki.NewSigningKey()
	if err != nil {
		return err
	}
	serving, err := ca.Issue(pki.Request{CommonName: "kube-apiserver", Hosts: []string{loopback, "localhost"}})
	if err != nil {
		return err
	}
	admin, err := ca.Issue(pki.Request{CommonName: "admin", Groups: []string{"system:masters"}})
	if err != nil {
		return err
	}
	if err := errors.Join(
		(pki.Pair{Cert: public, Key: private}).Write(p.dir, "service-account"),
		serving.Write(p.dir, "apiserver"),
		os.WriteFile(p.file("ca.crt"), ca.CertPEM, 0o600),
	); err != nil {
		return err
	}
	kubeconfig, err := pki.Kubeconfig("throughput", server, "admin", ca.CertPEM, admin)
	if err != nil {
		return err
	}
	p.kubeconfig = p.file("kubeconfig")
	if err := os.WriteFile(p.kubeconfig, kubeconfig, 0o600); err != nil {
		return fmt.Errorf("write the kubeconfig: %w", err)
	}
	if p.config, err = clientcmd.RESTConfigFromKubeConfig(kubeconfig); err != nil {
		return fmt.Errorf("read the kubeconfig: %w", err)
	}
	p.config.QPS, p.config.Burst = -1, -1 // no limit
	p.config.ContentType, p.config.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf,application/json"
	p.client, err = kubernetes.NewForConfig(p.config)
	return err
}

// ready waits for the API server.
func (p *plane) ready(ctx context.Context) error {
	var last error
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); {
		for _, process := range p.processes {
			if err := process.ended(); err != nil {
				return err
			}
		}
		if last = p.client.CoreV1().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error(); last == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return fmt.Errorf("the API server is not ready after 2m (its log is %s): %w", p.file("kube-apiserver.log"), last)
}

// installCRDs makes the kinds known whose definitions are in a file.
func (p *plane) installCRDs(file string) error {
	config := rest.CopyConfig(p.config)
	config.ContentType, config.AcceptContentTypes = "", "" // these are not in every encoding
	if _, err := envtest.InstallCRDs(config, envtest.CRDInstallOptions{Paths: []string{file}, ErrorIfPathMissing: true}); err != nil {
		return fmt.Errorf("install %s: %w", file, err)
	}
	return nil
}

// stop ends everything, the newest first.
func (p *plane) stop() {
	for i := len(p.processes) - 1; i >= 0; i-- {
		p.processes[i].stop()
	}
}

// freePorts finds ports that nobody listens on.
func freePorts(n int) ([]string, error) {
	ports := make([]string, n)
	for i := range ports {
		// Held until all are found, so that they differ.
		l, err := net.Listen("tcp", net.JoinHostPort(loopback, "0")) //nolint:noctx // takes no time
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer l.Close()
		addr, ok := l.Addr().(*net.TCPAddr)
		if !ok {
			return nil, fmt.Errorf("find a free port: the listener's address is %v", l.Addr())
		}
		ports[i] = strconv.Itoa(addr.Port)
	}
	return ports, nil
}
