package netns

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"sluice/control/api"
)

// far is behind the second uplink, where nobody but the gateway leads.
const far = "198.19.5.1"

// passage is a site whose client sends towards far; counted says how many packets came out there.
type passage struct {
	*site
	counted atomic.Int64
}

// newPassage is a gateway with two uplinks, whose policies let everything pass: what stops a packet is the matrix.
func newPassage(t *testing.T) *passage {
	t.Helper()
	p := &passage{site: newSite(t)}
	p.uplink2(1)
	p.must(p.Attacker, "ip addr add "+far+"/32 dev lo")
	p.must(p.Attacker, "ip route add 198.51.100.0/24 via 198.18.1.2")
	p.must(p.ToR, "ip route add "+far+"/32 via 198.18.0.2")
	p.write(strings.ReplaceAll(p.file, "    default: drop\n", "    default: accept\n"))
	p.edit(secondUplink, withUplink2("auto"), "\nbgp:\n", "\nroutes: [{prefix: "+far+"/32, via: [198.18.1.1]}]\n\nbgp:\n")
	var conn net.PacketConn
	err := p.Attacker.Do(func() (err error) {
		conn, err = net.ListenPacket("udp", far+":7777")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		for {
			if _, _, err := conn.ReadFrom(make([]byte, 100)); err != nil {
				return
			}
			p.counted.Add(1)
		}
	}()
	p.start()
	eventually(t, func() error { return p.learned(bothDefaults) }) // the way back to the client
	return p
}

// send sends packets to far.
func (p *passage) send(n int) {
	p.t.Helper()
	conn, err := p.Client.Dial(p.t.Context(), "udp", netip.AddrPortFrom(netip.MustParseAddr(far), 7777).String())
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	for range n {
		_, _ = conn.Write([]byte("x")) // an earlier one's ICMP error may come back here
	}
}

const volley = 20

// stopped sends a volley that must not pass. The echo takes the same way into the gateway: when it is answered, the volley
// has been judged. The neighbors on both sides are known before, so that nothing waits for them.
func (p *passage) stopped(what string) {
	p.t.Helper()
	p.must(p.Gateway.Namespace, "ping -c1 -W5 198.18.1.1")
	p.must(p.Client, "ping -c1 -W5 198.18.0.2")
	passed := p.counted.Load()
	p.send(volley)
	p.must(p.Client, "ping -c1 -W5 198.18.0.2")
	if n := p.counted.Load() - passed; n != 0 {
		p.t.Errorf("%s: %d packets went from one uplink to the other", what, n)
	}
}

// passes sends until something comes out.
func (p *passage) passes() {
	p.t.Helper()
	passed := p.counted.Load()
	eventually(p.t, func() error {
		p.send(1)
		if p.counted.Load() == passed {
			return errors.New("nothing passed from one uplink to the other")
		}
		return nil
	})
}

func TestNothingGoesFromUplinkToUplinkWithoutTransitNotEvenWithEmptySlots(t *testing.T) {
	t.Parallel()
	p := newPassage(t)
	// The programs see that the kernel's rules prohibit it, and count.
	before := p.packets("tc", "eth0", "forward-denied")
	p.stopped("programs and kernel")
	if n := p.packets("tc", "eth0", "forward-denied") - before; n != volley {
		t.Errorf("forward-denied counted %d of %d", n, volley)
	}
	// Without those rules, which a daemon would bring back at once, the matrix of the programs holds alone.
	before = p.packets("tc", "eth1", "forward-denied")
	p.kill()
	p.must(p.Gateway.Namespace, "ip rule del iif eth0 priority 18800")
	p.must(p.Gateway.Namespace, "ip rule del iif eth0 priority 18801")
	p.stopped("the programs alone")
	p.start()
	if n := p.packets("tc", "eth1", "forward-denied") - before; n != volley {
		t.Errorf("forward-denied counted %d of %d", n, volley)
	}
	eventually(t, func() error { return p.learned(bothDefaults) })
	// Fail-open is not an open forwarder: without any program the kernel's own rules hold.
	for _, name := range []string{"eth0", "eth1"} {
		for _, kind := range []string{"tcx-ingress", "tcx-egress", "xdp"} {
			if err := p.slot(kind, name).Delete(uint32(0)); err != nil {
				t.Fatal(err)
			}
		}
	}
	p.stopped("the kernel alone")
	if p.packets("xdp", "eth0", "no-generation-pass") == 0 {
		t.Error("no-generation-pass counted nothing")
	}
	// The control: what stopped it was the matrix. The apply fills the slots again.
	p.edit("\nbgp:\n", "\nforward: [{from: uplink, to: uplink, transit: true}]\n\nbgp:\n")
	p.apply()
	p.passes()
	for _, i := range show[[]api.Interface](p.site, "interfaces") {
		if !i.TCX {
			t.Errorf("no tcx programs on %s", i.Name)
		}
	}
}
