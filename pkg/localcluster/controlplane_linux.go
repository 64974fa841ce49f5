// SPDX-License-Identifier: Apache-2.0

package localcluster

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spotbench/spotbench/pkg/localcluster/machine"
	"github.com/spotbench/spotbench/pkg/localcluster/network"
	"github.com/spotbench/spotbench/pkg/localcluster/pki"
	"github.com/spotbench/spotbench/pkg/localcluster/toolchain"
)

// controlPlane is the name of the machine that runs the control plane.
const controlPlane = "control-plane"

func apiServerURL(p network.Plan) string {
	return "https://" + net.JoinHostPort(p.HostIP().String(), "6443")
}

// issueAll writes every certificate, key and kubeconfig of the control plane.
func issueAll(s *state) (*pki.Authority, error) {
	p := paths{s.Name}
	if err := os.MkdirAll(p.pki(), 0o700); err != nil {
		return nil, fmt.Errorf("make the PKI directory: %w", err)
	}
	ca, err := pki.NewAuthority("spotbench-" + s.Name)
	if err != nil {
		return nil, err
	}
	frontProxy, err := pki.NewAuthority("spotbench-" + s.Name + "-front-proxy")
	if err != nil {
		return nil, err
	}
	for name, authority := range map[string]*pki.Authority{"ca": ca, "front-proxy-ca": frontProxy} {
		key, err := authority.KeyPEM()
		if err != nil {
			return nil, err
		}
		if err := (pki.Pair{Cert: authority.CertPEM, Key: key}).Write(p.pki(), name); err != nil {
			return nil, err
		}
	}
	private, public, err := pki.NewSigningKey()
	if err != nil {
		return nil, err
	}
	if err := (pki.Pair{Cert: public, Key: private}).Write(p.pki(), "service-account"); err != nil {
		return nil, err
	}
	plan := s.Plan
	loopback := plan.Loopback().String()
	for name, r := range map[string]pki.Request{
		"apiserver": {CommonName: "kube-apiserver", Hosts: []string{plan.HostIP().String(), plan.APIServiceIP().String(), loopback, "localhost",
			"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}},
		"apiserver-kubelet": {CommonName: "kube-apiserver-kubelet-client", Groups: []string{"system:masters"}},
		"apiserver-etcd":    {CommonName: "kube-apiserver"},
		"etcd":              {CommonName: "etcd", Hosts: []string{loopback, "localhost"}},
	} {
		pair, err := ca.Issue(r)
		if err != nil {
			return nil, err
		}
		if err := pair.Write(p.pki(), name); err != nil {
			return nil, err
		}
	}
	pair, err := frontProxy.Issue(pki.Request{CommonName: "front-proxy-client"})
	if err != nil {
		return nil, err
	}
	if err := pair.Write(p.pki(), "front-proxy-client"); err != nil {
		return nil, err
	}
	for file, r := range map[string]pki.Request{
		p.kubeconfig():            {CommonName: "admin", Groups: []string{"system:masters"}},
		p.pki("controllers.conf"): {CommonName: "system:kube-controller-manager"},
		p.pki("scheduler.conf"):   {CommonName: "system:kube-scheduler"},
		p.pki("dns.conf"):         {CommonName: dnsUser},
		p.pki("kwok.conf"):        {CommonName: kwokUser, Groups: []string{"system:masters"}},
	} {
		pair, err := ca.Issue(r)
		if err != nil {
			return nil, err
		}
		kubeconfig, err := pki.Kubeconfig("spotbench-"+s.Name, apiServerURL(plan), r.CommonName, ca.CertPEM, pair)
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(file, kubeconfig, 0o600); err != nil {
			return nil, fmt.Errorf("write the kubeconfig of %s: %w", r.CommonName, err)
		}
	}
	return ca, nil
}

// loadAuthority reads back the cluster's certificate authority.
func loadAuthority(name string) (*pki.Authority, error) {
	p := paths{name}
	cert, err := os.ReadFile(p.pki("ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("read the cluster's certificate authority: %w", err)
	}
	key, err := os.ReadFile(p.pki("ca.key"))
	if err != nil {
		return nil, fmt.Errorf("read the cluster's certificate authority: %w", err)
	}
	return pki.LoadAuthority(cert, key)
}

// controlPlaneSpec is the machine that runs the control plane. It shares the
// host's network: the API server listens on the bridge, the rest on a loopback
// address of the cluster's own.
func controlPlaneSpec(s *state, tools *toolchain.Set) (machine.Spec, error) {
	p, plan := paths{s.Name}, s.Plan
	loopback := plan.Loopback().String()
	etcd := "https://" + net.JoinHostPort(loopback, "2379")
	etcdPeer := "http://" + net.JoinHostPort(loopback, "2380")
	corefile := p.run("Corefile")
	if err := os.WriteFile(corefile, corednsConfig(plan, p.pki("dns.conf")), 0o600); err != nil {
		return machine.Spec{}, fmt.Errorf("write the DNS configuration: %w", err)
	}
	services := []machine.Service{
		{Name: "etcd", Args: []string{tools.Path("etcd"), "--name=" + s.Name, "--data-dir=" + p.disk("etcd"),
			"--listen-client-urls=" + etcd, "--advertise-client-urls=" + etcd,
			"--listen-peer-urls=" + etcdPeer, "--initial-advertise-peer-urls=" + etcdPeer, "--initial-cluster=" + s.Name + "=" + etcdPeer,
			"--cert-file=" + p.pki("etcd.crt"), "--key-file=" + p.pki("etcd.key"), "--client-cert-auth", "--trusted-ca-file=" + p.pki("ca.crt"),
			// The cluster does not survive its machine anyway.
			"--unsafe-no-fsync", "--log-level=warn"}},
		{Name: "kube-apiserver", Args: []string{tools.Path("kube-apiserver"),
			"--bind-address=" + plan.HostIP().String(), "--advertise-address=" + plan.HostIP().String(), "--secure-port=6443",
			"--etcd-servers=" + etcd, "--etcd-cafile=" + p.pki("ca.crt"), "--etcd-certfile=" + p.pki("apiserver-etcd.crt"), "--etcd-keyfile=" + p.pki("apiserver-etcd.key"),
			"--tls-cert-file=" + p.pki("apiserver.crt"), "--tls-private-key-file=" + p.pki("apiserver.key"),
			"--client-ca-file=" + p.pki("ca.crt"),
			"--service-account-key-file=" + p.pki("service-account.crt"), "--service-account-signing-key-file=" + p.pki("service-account.key"),
			"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
			"--service-cluster-ip-range=" + plan.ServiceCIDR().String(),
			"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
			// Beta in 1.34 and off by default: manifests/base/affinity.
			"--feature-gates=MutatingAdmissionPolicy=true", "--runtime-config=admissionregistration.k8s.io/v1beta1=true",
			"--kubelet-client-certificate=" + p.pki("apiserver-kubelet.crt"), "--kubelet-client-key=" + p.pki("apiserver-kubelet.key"),
			"--kubelet-certificate-authority=" + p.pki("ca.crt"), "--kubelet-preferred-address-types=InternalIP",
			"--requestheader-client-ca-file=" + p.pki("front-proxy-ca.crt"), "--requestheader-allowed-names=front-proxy-client",
			"--requestheader-extra-headers-prefix=X-Remote-Extra-", "--requestheader-group-headers=X-Remote-Group", "--requestheader-username-headers=X-Remote-User",
			"--proxy-client-cert-file=" + p.pki("front-proxy-client.crt"), "--proxy-client-key-file=" + p.pki("front-proxy-client.key"),
			"--enable-aggregator-routing=true", "--profiling=false"}},
		{Name: "kube-controller-manager", Args: []string{tools.Path("kube-controller-manager"),
			"--kubeconfig=" + p.pki("controllers.conf"), "--authentication-kubeconfig=" + p.pki("controllers.conf"), "--authorization-kubeconfig=" + p.pki("controllers.conf"),
			"--bind-address=" + loopback, "--leader-elect=false", "--use-service-account-credentials=true",
			"--service-account-private-key-file=" + p.pki("service-account.key"), "--root-ca-file=" + p.pki("ca.crt"),
			"--cluster-signing-cert-file=" + p.pki("ca.crt"), "--cluster-signing-key-file=" + p.pki("ca.key"),
			"--allocate-node-cidrs=false", "--flex-volume-plugin-dir=" + p.run("flexvolumes"), "--node-monitor-grace-period=" + gracePeriod(s.Shape.KwokNodes()).String(), "--profiling=false",
			// For thousands of simulated nodes: its own limit of 20 requests a second would
			// take minutes to untaint them, and the TTL controller would annotate each anew
			// whenever the cluster grows.
			"--kube-api-qps=500", "--kube-api-burst=1000", "--controllers=*,-ttl-controller"}},
		{Name: "kube-scheduler", Args: []string{tools.Path("kube-scheduler"),
			"--kubeconfig=" + p.pki("scheduler.conf"), "--authentication-kubeconfig=" + p.pki("scheduler.conf"), "--authorization-kubeconfig=" + p.pki("scheduler.conf"),
			"--bind-address=" + loopback, "--leader-elect=false", "--profiling=false"}},
		{Name: "coredns", Held: true, Args: []string{tools.Path("coredns"), "-conf", corefile}},
	}
	if s.Shape.KwokNodes() > 0 {
		if err := os.WriteFile(p.run("kwok.yaml"), []byte(kwokConfig), 0o600); err != nil {
			return machine.Spec{}, fmt.Errorf("write kwok's configuration: %w", err)
		}
		services = append(services, machine.Service{Name: toolchain.Kwok, Held: true, Args: kwokArgs(s, tools)})
	}
	if err := os.MkdirAll(p.disk("etcd"), 0o700); err != nil {
		return machine.Spec{}, fmt.Errorf("make etcd's directory: %w", err)
	}
	return machine.Spec{Socket: p.socket(controlPlane), LogDir: p.logs(controlPlane), Services: services}, nil
}

// corednsConfig serves cluster DNS on the bridge; the Service kube-dns points there.
func corednsConfig(plan network.Plan, kubeconfig string) []byte {
	loopback := plan.Loopback().String()
	return fmt.Appendf(nil, `.:53 {
    bind %s
    errors
    health %s
    ready %s
    kubernetes cluster.local in-addr.arpa {
        kubeconfig %s
        pods insecure
        ttl 5
    }
    cache 5
    forward . /etc/resolv.conf
}
`, plan.HostIP(), net.JoinHostPort(loopback, "8080"), dnsReady(plan), filepath.Clean(kubeconfig))
}

// dnsReady is where cluster DNS says whether it is ready.
func dnsReady(plan network.Plan) string { return net.JoinHostPort(plan.Loopback().String(), "8181") }

func waitForDNS(ctx context.Context, plan network.Plan) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return waitFor(ctx, "cluster DNS does not become ready", func(ctx context.Context) (bool, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+dnsReady(plan)+"/ready", nil)
		if err != nil {
			return false, fmt.Errorf("ask cluster DNS: %w", err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false, fmt.Errorf("ask cluster DNS: %w", err)
		}
		return resp.StatusCode == http.StatusOK, resp.Body.Close()
	})
}
