package bgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"
	"github.com/vishvananda/netns"

	"sluice/bgp/fib"
)

// speaker is what lives from a start to a stop.
type speaker struct {
	bgp    *server.BgpServer
	fib    *fib.Table
	sweep  *sweeper
	census census
	cancel func() // ends the watchers, and whoever asks GoBGP on the side
	// passwords by neighbor address, guarded as State is. GoBGP wants the same one again with every update, or it resets the session.
	passwords map[netip.Addr]string
	// receiving ends the watch over FlowSpec rules by neighbor address.
	receiving map[netip.Addr]context.CancelFunc
	ways      *ways // that our paths are announced by
}

// start ends the speaker that runs, if any, and starts one with this identity. On an error none is left, but where the port was not
// free to begin with. FlowSpec rules outlive it as they outlive a session.
func (s *Subsystem) start(ctx context.Context, identity State, heirs []Neighbor) error {
	if s.speaker != nil {
		if err := s.vacant(ctx, identity.Port); err != nil {
			return err
		}
		before := s.have.Neighbors
		err := s.speaker.cease(ceaseTimeout)
		s.gone("restarted with another identity")
		for _, n := range before {
			heir, _ := at(heirs, n.Address)
			s.flows.end(n.Address, heir)
		}
		if err != nil {
			return err
		}
	}
	var err error
	sp := &speaker{passwords: map[netip.Addr]string{}, receiving: map[netip.Addr]context.CancelFunc{}, ways: newWays(), cancel: func() {}}
	if sp.fib, err = fib.Open(s.log, netns.None(), s.links.lost, s.sessions.taken); err != nil {
		return err
	}
	sp.sweep = newSweeper(sp.fib.Sweep, sp.fib.Kept)
	sp.bgp = server.NewBgpServer(server.LoggerOption(slog.New(tap{Handler: s.log.With("from", "gobgp").Handler(), of: s.sessions, sweep: sp.sweep}), nil))
	go sp.bgp.Serve()
	if err := s.configure(ctx, sp, identity); err != nil {
		return errors.Join(err, sp.cease(ceaseTimeout))
	}
	s.runs(sp)
	return nil
}

// configure opens the listeners and binds policy and watcher.
func (s *Subsystem) configure(ctx context.Context, sp *speaker, identity State) error {
	err := sp.bgp.StartBgp(ctx, &api.StartBgpRequest{Global: &api.Global{
		Asn: identity.ASN, RouterId: identity.RouterID.String(), ListenPort: int32(identity.Port),
		UseMultiplePaths: true,
	}})
	if err != nil {
		return listening(identity.Port, err)
	}
	if err := sp.bgp.SetPolicies(ctx, policies(identity, sp.ways)); err != nil {
		return fmt.Errorf("policies: %w", err)
	}
	for _, assignment := range assignments() {
		if err := sp.bgp.SetPolicyAssignment(ctx, assignment); err != nil {
			return fmt.Errorf("policies: %w", err)
		}
	}
	watching, cancel := context.WithCancel(context.Background())
	judging := make(chan struct{})
	// Who judges by GoBGP's routes has ended before GoBGP does.
	sp.cancel = func() { cancel(); <-judging }
	go func() {
		defer close(judging)
		s.flows.run(watching, unicastRIB{sp.bgp})
	}()
	go s.count(watching, sp)
	return s.watch(watching, sp)
}

// vacant says why another port than the present one could not be had.
func (s *Subsystem) vacant(ctx context.Context, port uint16) error {
	if port == s.have.Port {
		return nil
	}
	for _, network := range []string{"tcp4", "tcp6"} {
		l, err := new(net.ListenConfig).Listen(ctx, network, fmt.Sprintf(":%d", port))
		if err != nil {
			return listening(port, err)
		}
		_ = l.Close()
	}
	return nil
}

// listening is why there is no listener.
func listening(port uint16, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("TCP port %d is in use: stop the other BGP daemon on this machine, or set another port: %w", port, err)
	}
	return fmt.Errorf("listen on TCP port %d: %w", port, err)
}

// receive watches for the FlowSpec rules and blackholes of a neighbor, before its session begins.
func (sp *speaker) receive(n Neighbor, to *flows) error {
	if !n.FlowSpec4 && !n.FlowSpec6 && n.Blackhole == ([4]uint32{}) {
		return nil
	}
	ctx, end := context.WithCancel(context.Background())
	sp.receiving[n.Address] = end
	return to.watch(ctx, sp.bgp, n)
}

// endReceiving is before the speaker ends: its last events are not the neighbors' doing.
func (sp *speaker) endReceiving() {
	for _, end := range sp.receiving {
		end()
	}
}

// ceaseTimeout bounds the end of a speaker: GoBGP has no bound of its own, and took 217 s for the table of a million routes.
const ceaseTimeout = 5 * time.Minute

// cease stops with a notification to every neighbor. The writer goes first: the kernel keeps its routes. After an error GoBGP may still hold its
// port, and sessions.
func (sp *speaker) cease(atMost time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), atMost)
	defer cancel()
	sp.quiet()
	err := within(ctx, func() error {
		sp.cancel()
		sp.hangUp()
		sp.bgp.Stop()
		return nil
	})
	if err != nil {
		return fmt.Errorf("GoBGP has not stopped within %v", atMost)
	}
	return nil
}

// quiet takes the speaker's events from who acts on them: the last ones are its own doing.
func (sp *speaker) quiet() {
	sp.sweep.stop()
	sp.fib.Close()
	sp.endReceiving()
}

// hangUpTimeout bounds the wait for notifications to be written.
const hangUpTimeout = 2 * time.Second

// hangUp sends a Cease in every session and waits until it is written. Stop would do neither for sure: it closes the
// accepted connections beside the goroutines that write, and a session that ends without a word is a crash to the
// neighbor, who then keeps our routes for the restart time.
func (sp *speaker) hangUp() {
	ctx, cancel := context.WithTimeout(context.Background(), hangUpTimeout)
	defer cancel()
	established := func() (addresses []string) {
		states, _ := sp.states(ctx) // an error is the end of the wait
		for addr, state := range states {
			if state.session == bgp.BGP_FSM_ESTABLISHED {
				addresses = append(addresses, addr.String())
			}
		}
		return addresses
	}
	for _, address := range established() {
		// Stop comes whatever it says.
		_ = within(ctx, func() error { return sp.bgp.DisablePeer(ctx, &api.DisablePeerRequest{Address: address}) })
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil && len(established()) > 0 {
		<-tick.C
	}
}

// leave stops without a notification where graceful restart was negotiated.
func (sp *speaker) leave(ctx context.Context) error {
	sp.quiet()
	err := within(ctx, func() error {
		sp.cancel()
		return sp.bgp.StopBgp(ctx, &api.StopBgpRequest{AllowGracefulRestart: true})
	})
	if err != nil {
		return fmt.Errorf("bgp: stop: %w", err)
	}
	return nil
}

// down ends the speaker, if any, and empties the kernel of our routes.
func (s *Subsystem) down() error {
	table, err := s.have.Learn.Table, error(nil)
	if s.speaker != nil {
		err = s.speaker.cease(ceaseTimeout)
		s.gone("stopped")
		s.flows.clear()
	}
	return errors.Join(err, fib.Flush(netns.None(), table))
}

// fibPolicy is l in the terms of fib, which asks for the prefix alone: what it hears passed the filters, and what it kept over a
// restart has nothing else.
func fibPolicy(l Learn) fib.Policy {
	p := fib.Policy{ECMP: l.ECMP, Metric: l.Metric, Table: l.Table}
	for _, t := range l.Tunnels {
		p.Tunnels = append(p.Tunnels, fib.Tunnel(t))
	}
	for _, f := range l.Accept {
		if f.Prefix.IsValid() {
			p.Accept = append(p.Accept, fib.Match(f.PrefixMatch))
			continue
		}
		for _, whole := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
			p.Accept = append(p.Accept, fib.Match{Prefix: netip.PrefixFrom(whole, 0), LE: whole.BitLen()})
		}
	}
	return p
}

// restarting reports whether a session made now is the one that a restart interrupted.
func (s *Subsystem) restarting(n Neighbor) bool {
	return s.options.Restarting && time.Since(s.born) < n.RestartTime
}
