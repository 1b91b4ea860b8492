package tunnel

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"sluice/control/compile"
	"sluice/control/config"
)

// world is a machine, with the rest of the world around it and a clock that goes by itself.
type world struct {
	t       *testing.T
	m       *machine
	now     time.Time
	tunnels []config.Tunnel
	names   map[string][]netip.Addr // what DNS says; a name that is missing does not resolve
	mtu     map[netip.Addr]int
	noRoute map[netip.Addr]bool
	alive   map[netip.AddrPort]bool  // the endpoints that answer
	echoes  map[netip.Addr]bool      // the addresses that answer probes
	devices map[string]*deviceOfPeer // by tunnel/peer
	polled  time.Time
	takes   time.Duration // to compile
	stuck   bool          // routes of peers that are down cannot be withdrawn

	told    map[string]compile.TunnelNow // as last compiled
	changes []string                     // why, of each compilation
	events  []Event
	asked   map[string]int // how often a name was asked for
	pings   []Ping
}

// deviceOfPeer stands for what a WireGuard device knows of a peer.
type deviceOfPeer struct {
	written   netip.AddrPort // that was configured last
	endpoint  netip.AddrPort // in use: written, or where the peer roamed
	talks     bool           // there is traffic to it all the time
	keepalive time.Duration
	next      time.Time
	rx, tx    uint64
	handshake time.Time
}

const (
	e1, e2, e3 = "198.51.100.7:51820", "198.51.100.8:51820", "[2001:db8::9]:51820"
	hub        = "hub.example"
)

func endpoints(list ...string) (out []config.Endpoint) {
	for _, s := range list {
		if ap, err := netip.ParseAddrPort(s); err == nil {
			out = append(out, config.Endpoint{Host: ap.Addr().String(), Addr: ap.Addr(), Port: ap.Port()})
		} else {
			out = append(out, config.Endpoint{Host: s, Port: 51820})
		}
	}
	return out
}

// one is a tunnel called fra1 with a peer called a.
func one(list ...string) config.Tunnel {
	return config.Tunnel{Name: "fra1", Type: config.TypeWireGuard, Peers: []config.Peer{
		{Name: "a", Endpoints: endpoints(list...), PublicKeys: []string{"key-a"}},
	}}
}

// probed is a tunnel whose peer a is probed each second, down after 3 and up after 5.
func probed(list ...string) config.Tunnel {
	t := one(list...)
	t.Health = &config.Health{Interval: time.Second, DownAfter: 3, UpAfter: 5}
	t.Peers[0].Probe = inside
	return t
}

var inside = netip.MustParseAddr("10.20.0.1")

func newWorld(t *testing.T, tunnels ...config.Tunnel) *world {
	t.Helper()
	w := &world{t: t, m: newMachine(), now: time.Now(), names: map[string][]netip.Addr{}, mtu: map[netip.Addr]int{}, noRoute: map[netip.Addr]bool{},
		alive: map[netip.AddrPort]bool{}, echoes: map[netip.Addr]bool{}, devices: map[string]*deviceOfPeer{}, asked: map[string]int{}}
	w.apply(tunnels...)
	return w
}

// apply makes tunnels live: they are compiled with what is known, written, and then followed.
func (w *world) apply(tunnels ...config.Tunnel) {
	w.tunnels = tunnels
	w.compile()
	w.m.follow(tunnels, w.now)
}

// restart is a new process: what is left is the file, and the devices.
func (w *world) restart() {
	kept := w.m.contents()
	w.m = newMachine()
	w.m.kept = kept
	w.m.adopt(w.see(), w.now)
	w.apply(w.tunnels...)
}

// compile hands on what is known now, as a driver does: an endpoint is written where another one is wanted.
func (w *world) compile() {
	w.told = w.m.now(w.tunnels)
	for _, t := range w.tunnels {
		for _, p := range t.Peers {
			d := w.devices[t.Name+"/"+p.Name]
			if d == nil {
				d = &deviceOfPeer{keepalive: p.Keepalive}
				w.devices[t.Name+"/"+p.Name] = d
			}
			want := w.told[t.Name].Peers[p.Name].Endpoint
			if !want.IsValid() {
				for _, e := range slices.Backward(p.Endpoints) {
					if e.Addr.IsValid() {
						want = e.AddrPort()
					}
				}
			}
			if want.IsValid() && want != d.written {
				d.written, d.endpoint = want, want
			}
		}
	}
}

// run lets time pass.
func (w *world) run(d time.Duration) {
	w.t.Helper()
	for end := w.now.Add(d); w.now.Before(end); w.now = w.now.Add(grid) {
		w.traffic()
		if w.now.Sub(w.polled) >= time.Second {
			w.polled = w.now
			w.m.seen(config.TypeWireGuard, w.see(), w.now)
		}
		w.step()
	}
}

func (w *world) step() {
	todo := w.m.tick(w.now)
	w.pings = append(w.pings, todo.ping...)
	for _, p := range todo.ping {
		if w.echoes[p.To] {
			w.m.answered(p.Tag, w.now.Add(10*time.Millisecond))
		}
	}
	for _, host := range todo.resolve {
		w.asked[host]++
		addresses, ok := w.names[host]
		var err error
		if !ok {
			err = errors.New("no such host")
		}
		w.m.resolved(host, addresses, err, w.now)
	}
	if todo.underlay != nil {
		found := map[netip.Addr]int{}
		for _, a := range todo.underlay {
			if !w.noRoute[a] {
				found[a] = w.mtu[a]
			}
		}
		w.m.underlaid(todo.underlay, found, false)
	}
	w.events = append(w.events, w.m.events...)
	w.m.events = nil
	if !w.stuck {
		w.m.withdrawn(w.m.version)
	}
	w.m.withheld(w.m.version, false)
	if w.m.told > w.m.applied && w.m.pause(w.now) == 0 {
		before := w.told
		w.compile()
		if maps.EqualFunc(before, w.told, func(a, b compile.TunnelNow) bool { return a.Underlay == b.Underlay && maps.Equal(a.Peers, b.Peers) }) {
			w.t.Errorf("compiled again for nothing: %v", w.m.why)
		}
		version, why := w.m.compiling()
		w.m.compiled(version, w.takes, w.now)
		w.changes = append(w.changes, reasons(why))
	}
}

// traffic is a second's worth of it, for devices that talk. Without a session there are handshakes alone. As the kernel's
// device and the userspace one do, it counts only what could be sent.
func (w *world) traffic() {
	for _, d := range w.devices {
		if w.now.Before(d.next) {
			continue
		}
		answered := w.alive[d.endpoint]
		switch {
		case w.noRoute[d.endpoint.Addr()]:
			d.next = w.now.Add(time.Second)
		case d.talks:
			d.next = w.now.Add(time.Second)
			d.tx += 148
			if answered {
				d.rx += 148
				if w.now.Sub(d.handshake) > 2*time.Minute {
					d.handshake = w.now
				}
			}
		case d.keepalive > 0:
			d.next = w.now.Add(d.keepalive)
			d.tx += keepaliveLen
		}
	}
}

// see is what the devices say.
func (w *world) see() (out []Seen) {
	for _, t := range w.tunnels {
		for _, p := range t.Peers {
			d := w.devices[t.Name+"/"+p.Name]
			out = append(out, Seen{Tunnel: t.Name, PublicKey: p.PublicKeys[0], Endpoint: d.endpoint, Handshake: d.handshake, Rx: d.rx, Tx: d.tx})
		}
	}
	return out
}

func (w *world) a() *deviceOfPeer { return w.devices["fra1/a"] }

// answers says which endpoints do from now on.
func (w *world) answers(list ...string) {
	clear(w.alive)
	for _, s := range list {
		w.alive[netip.MustParseAddrPort(s)] = true
	}
}

// uses asserts where the device of peer a sends to.
func (w *world) uses(want string) {
	w.t.Helper()
	if got := w.a().endpoint; got != netip.MustParseAddrPort(want) {
		w.t.Fatalf("the device sends to %s, want %s; changes: %q", got, want, w.changes)
	}
}

// changed asserts how often something new was compiled since the last call.
func (w *world) changed(n int) {
	w.t.Helper()
	if len(w.changes) != n {
		w.t.Fatalf("compiled %d times, want %d: %q", len(w.changes), n, w.changes)
	}
	w.changes = nil
}

func (w *world) down(want bool) {
	w.t.Helper()
	if got := w.told["fra1"].Peers["a"].Down; got != want {
		w.t.Fatalf("peer a is down: %v, want %v; changes: %q", got, want, w.changes)
	}
}

func addresses(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}
