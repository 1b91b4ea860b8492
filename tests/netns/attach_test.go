package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"sluice/cmd/lab"
	"sluice/control/api"
	"sluice/control/host"
)

// occupy puts somebody else's XDP program on an interface of the gateway.
func (s *site) occupy(name string) {
	s.t.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	var l link.Link
	err = s.Gateway.Do(func() error {
		device, err := netlink.LinkByName(name)
		if err == nil {
			l, err = link.AttachXDP(link.XDPOptions{Program: program, Interface: device.Attrs().Index})
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = errors.Join(l.Close(), program.Close()) })
}

func (s *site) iface(name string) api.Interface {
	s.t.Helper()
	for _, i := range show[[]api.Interface](s, "interfaces") {
		if i.Name == name {
			return i
		}
	}
	s.t.Fatalf("show interfaces does not name %s", name)
	return api.Interface{}
}

// isItsOwnInTheEyesOfTheDoctor: what Sluice attached is nothing to look at, and the flow tables of its daemon have room.
func (s *site) isItsOwnInTheEyesOfTheDoctor(name string) {
	s.t.Helper()
	eventually(s.t, func() (wrong error) { // the flow tables are known from the first sweep on
		var findings []host.Finding
		s.json(&findings, "doctor", "--bpf-dir", s.Gateway.BPFDir)
		seen := map[string]host.Finding{}
		for _, f := range findings {
			seen[f.Name] = f
		}
		for finding, says := range map[string]string{"xdp-attached/" + name: "Sluice's own program", "tcx-attached/" + name + "/ingress": "Sluice's own program alone",
			"tcx-attached/" + name + "/egress": "Sluice's own program alone", "conntrack": " of 131072 flows"} {
			if f := seen[finding]; f.Status != host.StatusOK || !strings.Contains(f.Detail, says) {
				wrong = errors.Join(wrong, fmt.Errorf("%s: %+v", finding, f))
			}
		}
		return wrong
	})
}

func TestAnUplinkThatRefusesNativeXDPFallsBackToGenericAndSaysSo(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.uplink2(4)
	s.edit(secondUplink, withUplink2("auto"))
	s.start()
	if i := s.iface("eth0"); i.XDPMode != "native" || i.XDPWhy != "" {
		t.Errorf("eth0: %+v", i)
	}
	const why = "native XDP was refused"
	if i := s.iface("eth1"); i.XDPMode != "generic" || !strings.Contains(i.XDPWhy, why) {
		t.Errorf("eth1: %+v", i)
	}
	if out := s.sluice("show", "interfaces").out; !strings.Contains(out, "eth1: XDP is generic, not native: "+why) {
		t.Errorf("show interfaces:\n%s", out)
	}
	for _, want := range []string{"falls back to generic", "interface=eth1", why} {
		if log := s.daemonLog(); !strings.Contains(log, want) {
			t.Errorf("the log does not say %q:\n%s", want, log)
		}
	}
	s.isItsOwnInTheEyesOfTheDoctor("eth0")
	if out := s.must(s.Gateway.Namespace, "ip link show eth1"); !strings.Contains(out, "xdpgeneric") {
		t.Errorf("eth1 is not in generic mode:\n%s", out)
	}
	s.counts("xdp", "eth1", "default-drop", func() { s.silent(s.Attacker, netip.MustParseAddr("198.18.1.2"), 8080) })
	// A new daemon finds it so, and does not try again, which would interrupt the interface.
	before := s.kept()
	s.kill()
	s.start()
	s.same("a restart", before, s.kept())
	if i := s.iface("eth1"); i.XDPMode != "generic" {
		t.Errorf("eth1 after the restart: %+v", i)
	}
}

func TestAWorkloadMayComeLaterAndGoAndComeAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.must(s.Gateway.Namespace, "ip link del web-2")
	status := s.start()
	if !strings.Contains(strings.Join(status.Engine.Warnings, "\n"), "workload web-2: interface web-2 is not there yet") {
		t.Errorf("warnings: %q", status.Engine.Warnings)
	}
	absent := []string{"203.0.113.0/24", "203.0.113.10/32", "2001:db8:100::/48", "2001:db8:100::10/128"}
	eventually(t, func() error { return s.bird.has(absent...) })
	for range 2 {
		s.connectWorkload2()
		eventually(t, func() error { return s.get(s.Client, lab.Web4[1], 80, "web-2") })
		eventually(t, func() error { return s.get(s.Client, lab.Web6[1], 80, "web-2") })
		s.established()
		s.silent(s.Client, lab.Web4[1], 443)
		s.counts("tc", "web-2", "default-drop", func() { s.silent(s.Workload(2), lab.Client4, 80) })
		eventually(t, func() error {
			if w := s.status().Engine.Warnings; len(w) > 0 {
				return fmt.Errorf("warnings: %q", w)
			}
			return nil
		})
		s.must(s.Gateway.Namespace, "ip link del web-2")
		eventually(t, func() error { return s.bird.has(absent...) })
		s.answers(s.Client, lab.Web4[0], 80, "web-1")
	}
	eventually(t, func() error { // the withdrawal is heard before the last step is done
		if e := s.status().Engine; !e.Applied || len(e.Warnings) != 1 {
			return fmt.Errorf("status: %+v", e)
		}
		return nil
	})
}

// connectWorkload2 makes the veth of web-2 as an orchestrator would.
func (s *site) connectWorkload2() {
	s.t.Helper()
	ns := s.Workload(2)
	s.must(s.Gateway.Namespace, "ip link add web-2 type veth peer name eth0 netns "+ns.Name)
	for _, words := range []string{
		"ip link set eth0 up", "ip addr add 203.0.113.11/32 dev eth0", "ip addr add 2001:db8:100::11/128 dev eth0 nodad",
		"ip route add default via 169.254.1.1 dev eth0 onlink", "ip route add default via fe80::1 dev eth0",
	} {
		s.must(ns, words)
	}
}
