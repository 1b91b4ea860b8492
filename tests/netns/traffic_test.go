package netns

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/cmd/lab"
	"sluice/control/api"
)

// packets is a counter of the gateway; one that counted nothing is 0.
func (s *site) packets(hook, link, reason string) uint64 {
	s.t.Helper()
	for _, r := range show[[]api.Reason](s, "reasons") {
		if r.Hook == hook && r.Interface == link && r.Reason == reason {
			return r.Packets
		}
	}
	return 0
}

// counts fails unless what f does moves the counter.
func (s *site) counts(hook, link, reason string, f func()) {
	s.t.Helper()
	before := s.packets(hook, link, reason)
	f()
	if s.packets(hook, link, reason) == before {
		s.t.Errorf("%s on %s did not count %s", hook, link, reason)
	}
}

func TestUnderDefaultDropTheClientIsAnsweredByWorkloadsAndByNothingElse(t *testing.T) {
	t.Parallel()
	s := newGateway(t)
	for i := range lab.Web4 {
		for _, server := range []netip.Addr{lab.Web4[i], lab.Web6[i]} {
			s.answers(s.Client, server, 80, fmt.Sprintf("web-%d", i+1))
		}
	}
	for _, server := range []netip.Addr{lab.Web4[0], lab.Web6[0]} {
		s.counts("xdp", "eth0", "default-drop", func() { s.silent(s.Client, server, 22) })
		// The node's policy lets it in, the workload's own does not.
		s.counts("tc", "eth0", "default-drop", func() { s.silent(s.Client, server, 443) })
	}
	for _, server := range []netip.Addr{lab.Gateway4, lab.Gateway6} {
		s.counts("xdp", "eth0", "default-drop", func() { s.silent(s.Client, server, 22) }) // not from there
	}
	s.counts("xdp", "eth0", "rule-drop", func() { s.silent(s.Attacker, lab.Web4[0], 80) })
	s.counts("xdp", "eth0", "rule-drop", func() { s.silent(s.Attacker, lab.Web6[0], 80) })
	drops := s.sluice("show", "drops")
	for _, want := range []string{"default-drop", "rule-drop", "no rule accepts it and the default is drop"} {
		if drops.code != 0 || !strings.Contains(drops.out, want) {
			t.Errorf("show drops does not tell of %q:\n%s%s", want, drops.out, drops.err)
		}
	}
}

func TestUnderDefaultDropTheBoxResolvesNamesKeepsItsBGPAndIsReachedOverManagement(t *testing.T) {
	t.Parallel()
	s := newGateway(t)
	s.resolves(s.Gateway.Namespace, "mirror.example.net")
	for _, server := range []netip.Addr{lab.Client4, lab.Client6} {
		s.counts("tc", "eth0", "default-drop", func() { s.silent(s.Gateway.Namespace, server, 80) })
	}
	for _, own := range []netip.Addr{lab.Gateway4, lab.Gateway6} {
		s.echo(s.Gateway.Namespace, netip.AddrPortFrom(own, 22))
		if err := s.echoes(s.ToR, netip.AddrPortFrom(own, 22)); err != nil {
			t.Errorf("management: %v", err)
		}
		s.echo(s.Gateway.Namespace, netip.AddrPortFrom(own, 23))
		s.silent(s.ToR, own, 23)
	}
	if st := s.status(); st.Established != 2 {
		t.Errorf("%d of 2 sessions are up", st.Established)
	}
	// A session that begins anew begins under default: drop, too.
	s.bird.do("restart edge")
	s.bird.do("restart edge6")
	s.established()
}

func TestAWorkloadReachesWhatItsEgressAllowsAndNothingElse(t *testing.T) {
	t.Parallel()
	s := newGateway(t)
	s.resolves(s.Workload(1), "www.example.net")
	for _, server := range []netip.Addr{lab.Client4, lab.Client6} {
		s.counts("tc", "web-1", "default-drop", func() { s.silent(s.Workload(1), server, 80) })
	}
	s.must(s.Workload(1), "ip addr add 203.0.113.99/32 dev eth0")
	s.counts("tc", "web-1", "workload-spoofed", func() {
		r := s.in(s.Workload(1), "ping", "-c1", "-W1", "-I", "203.0.113.99", lab.Resolver4.String())
		if r.code == 0 {
			t.Errorf("a forged source was answered: %s", r.out)
		}
	})
}

func TestWorkloadsReachEachOtherOnlyByAForwardEntry(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	// Policies that would let it pass, so that the matrix alone decides.
	s.write(strings.ReplaceAll(s.file, "egress: {default: drop, rules: [{name: dns", "egress: {default: accept, rules: [{name: dns"))
	s.start()
	pairs := func(do func(from *lab.Namespace, to netip.Addr, name string)) {
		do(s.Workload(1), lab.Web4[1], "web-2")
		do(s.Workload(1), lab.Web6[1], "web-2")
		do(s.Workload(2), lab.Web4[0], "web-1")
	}
	pairs(func(from *lab.Namespace, to netip.Addr, _ string) {
		link := map[*lab.Namespace]string{s.Workload(1): "web-1", s.Workload(2): "web-2"}[from]
		s.counts("tc", link, "forward-denied", func() { s.notReached(from, to, 80) })
	})
	s.edit("\nbgp:\n", "\nforward: [{from: workload, to: workload}]\n\nbgp:\n")
	s.apply()
	pairs(func(from *lab.Namespace, to netip.Addr, name string) { s.answers(from, to, 80, name) })
	s.silent(s.Workload(1), lab.Web4[1], 443) // the other's ingress still decides
}

// notReached fails where a connection is made; how it fails is not asked.
func (s *site) notReached(from *lab.Namespace, server netip.Addr, port uint16) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 700*time.Millisecond)
	defer cancel()
	if conn, err := from.Dial(ctx, "tcp", netip.AddrPortFrom(server, port).String()); err == nil {
		_ = conn.Close()
		s.t.Errorf("%s reached %s", from.Name, server)
	}
}

// resolves fails unless both resolvers answer.
func (s *site) resolves(from *lab.Namespace, name string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	for _, resolver := range []netip.Addr{lab.Resolver4, lab.Resolver6} {
		found, err := from.Resolve(ctx, resolver, name)
		if err != nil || len(found) != 1 || found[0] != lab.Client4 {
			s.t.Errorf("%s asks %s for %s: %v %v", from.Name, resolver, name, found, err)
		}
	}
}

// echo serves a port in a namespace until the end of the test: it sends back what it hears.
func (s *site) echo(ns *lab.Namespace, at netip.AddrPort) {
	s.t.Helper()
	var l net.Listener
	err := ns.Do(func() (err error) {
		l, err = net.Listen("tcp", at.String())
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
}

// echoes complains unless an echo server answers.
func (s *site) echoes(from *lab.Namespace, at netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
	defer cancel()
	conn, err := from.Dial(ctx, "tcp", at.String())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	const text = "hello\n"
	heard := make([]byte, len(text))
	if _, err = io.WriteString(conn, text); err == nil {
		_, err = io.ReadFull(conn, heard)
	}
	if err == nil && string(heard) != text {
		err = fmt.Errorf("heard %q", heard)
	}
	return err
}
