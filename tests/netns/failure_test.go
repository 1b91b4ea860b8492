package netns

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
)

// uplink2 is a second uplink in the gateway, which ends in the attacker's namespace. With queues it refuses native XDP:
// a veth wants as many receive queues as its peer has transmit queues.
func (s *site) uplink2(queues int) {
	s.t.Helper()
	s.must(s.Gateway.Namespace, fmt.Sprintf("ip link add eth1 numtxqueues 1 numrxqueues 1 type veth peer name up2 numtxqueues %[1]d numrxqueues %[1]d netns %s",
		queues, s.Attacker.Name))
	s.must(s.Attacker, "ip addr add 198.18.1.1/30 dev up2")
	s.must(s.Attacker, "ip link set up2 up")
	s.must(s.Gateway.Namespace, "ip link set eth1 up")
	s.quiet()
}

const secondUplink = "\nmanagement:\n"

func withUplink2(xdp string) string {
	return "  - {name: eth1, role: uplink, addresses: [198.18.1.2/30], xdp: {mode: " + xdp + "}}\n" + secondUplink
}

func TestAnApplyThatFailsInTheMiddleLeavesTheMachineAsItWas(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		prepare func(*site)
		change  []string
		says    []string
	}{
		"the metrics' port is in use": {
			prepare: func(s *site) { s.listen("127.0.0.1:9751") },
			change:  []string{"127.0.0.1:9750", "127.0.0.1:9751"},
			says:    []string{"telemetry.metrics", "127.0.0.1:9751", "address already in use", "free the port, or name another"},
		},
		"an uplink that refuses native XDP": {
			prepare: func(s *site) { s.uplink2(4) },
			change:  []string{secondUplink, withUplink2("native")},
			says:    []string{"native XDP on eth1", "no space left on device", "ethtool -l eth1"},
		},
		"another program is on the uplink": {
			prepare: func(s *site) { s.uplink2(1); s.occupy("eth1") },
			change:  []string{secondUplink, withUplink2("auto")},
			says:    []string{"eth1", "another XDP program is on it"},
		},
		"an interface is missing": {
			change: []string{secondUplink, withUplink2("auto")},
			says:   []string{"gateway.yaml:9:5:", "interfaces[1].name", "there is no interface eth1", "eth0, lo, web-1, web-2"},
		},
		"a sysctl that the kernel does not know": {
			change: []string{secondUplink, "\nsysctls: [{key: net.ipv4.no_such_key, value: 1}]\n" + secondUplink},
			says:   []string{"net.ipv4.no_such_key"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newGateway(t)
			if c.prepare != nil {
				c.prepare(s)
			}
			eventually(t, func() error { return s.learned(bothDefaults) })
			before := s.settled()
			protocols := s.sessions()
			// Much else changes with it: all of that has to come back.
			s.edit(append(c.change, webOpen, webClosed,
				"addresses: [198.18.0.2/30,", "mtu: 1400\n    addresses: [198.18.0.2/30, 198.18.0.9/32,",
				"prefixes: [203.0.113.0/24, ", "prefixes: [203.0.113.128/25, ")...)
			r := s.sluice("apply", "-c", s.Gateway.File)
			if r.code != 1 {
				t.Errorf("apply: exit code %d, want 1: %s%s", r.code, r.out, r.err)
			}
			for _, want := range c.says {
				if !strings.Contains(r.err, want) {
					t.Errorf("apply does not say %q: %s", want, r.err)
				}
			}
			s.same(name, before, s.settled())
			if e := s.status().Engine; !e.Applied || e.Revision != 1 || e.Pending != nil {
				t.Errorf("status: %+v", e)
			}
			s.established()
			if now := s.sessions(); now != protocols {
				t.Errorf("the sessions did not stay up: they came up %d times, %d before", now, protocols)
			}
			s.mustBe(s.open)
		})
	}
}

// sessions is how often the ToR's sessions came up: more than before means that one was lost meanwhile. BIRD's own column
// of times does not tell, since it converts it anew at each look and the last digit wavers.
func (s *site) sessions() int {
	s.t.Helper()
	said, err := os.ReadFile(s.bird.log)
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.Count(string(said), "BGP session established")
}

// settled is machine without the ids of what was loaded again, once two looks at it agree.
func (s *site) settled() string {
	s.t.Helper()
	last := ""
	eventually(s.t, func() error {
		now := s.machineWithoutIDs()
		if now != last {
			last = now
			return fmt.Errorf("the machine does not settle")
		}
		return nil
	})
	return last
}

// listen occupies a port in the gateway.
func (s *site) listen(at string) {
	s.t.Helper()
	var l net.Listener
	err := s.Gateway.Do(func() (err error) {
		l, err = net.Listen("tcp", at)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = l.Close() })
}

func TestAFirstStartThatFailsLeavesTheMachineAsItWas(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.foreigners()
	s.listen("127.0.0.1:9750")
	before := s.settled()
	if err := s.Gateway.StartDaemon(); err != nil {
		t.Fatal(err)
	}
	s.ends(1)
	log := s.daemonLog()
	for _, want := range []string{"127.0.0.1:9750", "address already in use", "free the port"} {
		if !strings.Contains(log, want) {
			t.Errorf("the daemon does not say %q:\n%s", want, log)
		}
	}
	s.same("a failed start", before, s.settled())
}
