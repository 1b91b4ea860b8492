package bgp_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/bgp"
	"sluice/bgp/bfd"
	"sluice/bgp/flowspec"
	"sluice/tests/nstest"
)

// TestMain is also the main of the children: GoBGP makes its sockets on any thread, so a speaker needs a process of
// its own inside the namespace.
func TestMain(m *testing.M) {
	var err error
	switch role, dir, _ := strings.Cut(nstest.Role(), "@"); {
	case len(os.Args) == 4 && os.Args[1] == bfd.Verb:
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		err = bfd.Run(ctx, "test")
		stop()
	case role == independent:
		err = serveBFD()
	case role != "":
		err = serve(role == restarted, dir)
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Roles. Behind @ stands the directory where a speaker finds its BFD process; none: it has no BFD.
const (
	fresh       = "speaker"
	restarted   = "restarted speaker"
	independent = "BFD" // of a neighbor, whatever becomes of its BGP
)

func childLog() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// serveBFD holds BFD sessions of a neighbor.
func serveBFD() error {
	s, err := bfd.Listen(childLog(), true)
	if err != nil {
		return err
	}
	return nstest.Serve(map[string]nstest.Handler{"set": func(arg json.RawMessage) (any, error) {
		var wanted []bfd.Config
		if err := json.Unmarshal(arg, &wanted); err != nil {
			return nil, err
		}
		return nil, s.Set(wanted)
	}})
}

func serve(restarting bool, dir string) error {
	ctx := context.Background()
	options := bgp.Options{Restarting: restarting}
	if dir != "" {
		k, err := bfd.NewKeeper(childLog(), dir, []string{"/proc/self/exe", bfd.Verb}, func(string) {})
		if err != nil {
			return err
		}
		options.BFD = k
	}
	s := bgp.New(childLog(), options)
	go func() { _ = s.Run(ctx) }()
	held := []string{}
	return nstest.Serve(map[string]nstest.Handler{
		"all events": func(json.RawMessage) (any, error) {
			for {
				select {
				case e := <-s.Events():
					held = append(held, string(e.Kind)+" "+e.Neighbor)
				default:
					return strings.Join(held, ", "), nil
				}
			}
		},
		"apply": func(arg json.RawMessage) (any, error) {
			var want bgp.State
			if err := json.Unmarshal(arg, &want); err != nil {
				return nil, err
			}
			have, err := s.Observe(ctx)
			if err != nil {
				return nil, err
			}
			steps := []string{}
			for _, op := range s.Diff(have, want) {
				steps = append(steps, op.String())
				if err := s.Apply(ctx, op); err != nil {
					return nil, err
				}
			}
			have, err = s.Observe(ctx)
			if left := s.Diff(have, want); err == nil && len(left) > 0 {
				err = fmt.Errorf("after apply there is still to do: %v", left)
			}
			return steps, err
		},
		"observe": func(json.RawMessage) (any, error) { return s.Observe(ctx) },
		"status":  func(json.RawMessage) (any, error) { return statusOf(ctx, s) },
		"routes":  func(json.RawMessage) (any, error) { return s.Routes(bgp.RouteQuery{}).Routes, nil },
		"peak":    func(json.RawMessage) (any, error) { return peakKiB() },
		"rib":     func(json.RawMessage) (any, error) { return s.RIB() },
		"flowspec": func(json.RawMessage) (any, error) {
			rules, refused := s.FlowSpec()
			out := []string{}
			for _, r := range rules {
				line := r.Neighbor + ": " + r.Name + " " + flowspec.ActionsText(r.Actions)
				if !r.Stale.IsZero() {
					line += " (stale)"
				}
				if r.Refused != "" {
					line += " (refused: " + r.Refused + ")"
				}
				out = append(out, line)
			}
			return map[string]any{"Rules": out, "Refused": refused}, nil
		},
		"table": func(arg json.RawMessage) (any, error) {
			var which [2]string
			if err := json.Unmarshal(arg, &which); err != nil {
				return nil, err
			}
			entries, _, err := s.NeighborTable(which[0], bgp.Table(which[1]), 0)
			return entries, err
		},
		"clear": func(arg json.RawMessage) (any, error) {
			var c clearing
			if err := json.Unmarshal(arg, &c); err != nil {
				return nil, err
			}
			return nil, s.Clear(ctx, c.Name, c.Soft)
		},
		"stop": func(json.RawMessage) (any, error) { return nil, s.Stop(ctx) },
		"down": func(json.RawMessage) (any, error) { return nil, s.Down(ctx) },
		"events": func(json.RawMessage) (any, error) {
			events := []string{}
			for {
				select {
				case e := <-s.Events():
					events = append(events, string(e.Kind)+" "+e.Neighbor)
				default:
					return events, nil
				}
			}
		},
	})
}

// statusOf asks again for a minute while GoBGP is busy: that is no answer yet.
func statusOf(ctx context.Context, s *bgp.Subsystem) (st []bgp.NeighborStatus, err error) {
	for begin := time.Now(); time.Since(begin) < time.Minute; {
		if st, err = s.Status(ctx); err == nil || !strings.Contains(err.Error(), "GoBGP is busy") {
			break
		}
	}
	return st, err
}

// peakKiB is the most memory that this process had at once.
func peakKiB() (n int, err error) {
	var usage unix.Rusage
	err = unix.Getrusage(unix.RUSAGE_SELF, &usage)
	return int(usage.Maxrss), err
}

// clearing is the argument of clear.
type clearing struct {
	Name string
	Soft bool
}

// site is a gateway's namespace with its ToRs. On the link to ToR i it has 198.18.i.2 and 2001:db8:i+1::2, the ToR .1
// and ::1.
type site struct {
	gw   *nstest.NS
	tors []*nstest.NS
}

func newSite(t *testing.T, tors int) *site {
	s := &site{gw: nstest.New(t)}
	for i := range tors {
		tor := nstest.New(t)
		nstest.Veth(t, s.gw, fmt.Sprintf("up%d", i), tor, "gw")
		s.gw.Address(t, fmt.Sprintf("up%d", i), fmt.Sprintf("198.18.%d.2/24", i), fmt.Sprintf("2001:db8:%d::2/64", i+1))
		tor.Address(t, "gw", fmt.Sprintf("198.18.%d.1/24", i), fmt.Sprintf("2001:db8:%d::1/64", i+1))
		s.tors = append(s.tors, tor)
	}
	return s
}

// torConfig is the BIRD configuration of ToR i: one session named sluice, and static routes to announce.
func torConfig(i int, local, remote, extra string, static ...string) string {
	routes := map[bool]string{}
	for _, r := range static {
		routes[strings.Contains(r, ":")] += fmt.Sprintf("  route %s blackhole;\n", r)
	}
	return fmt.Sprintf(`router id 198.18.%d.1;
protocol static static4 { ipv4;
%s}
protocol static static6 { ipv6;
%s}
protocol bgp sluice {
  local %s as %d;
  neighbor %s as 65010;
  hold time 9; connect retry time 1; connect delay time 1; error wait time 1, 2;
  graceful restart on; graceful restart time 30;
  ipv4 { import all; export where source = RTS_STATIC; };
  ipv6 { import all; export where source = RTS_STATIC; };
  %s
}
`, i, routes[false], routes[true], local, 65000+i, remote, extra)
}

// tor starts BIRD as ToR i with a session over IPv4. extra goes into the session.
func (s *site) tor(t *testing.T, i int, extra string, static ...string) *nstest.Bird {
	t.Helper()
	return nstest.StartBird(t, s.tors[i],
		torConfig(i, fmt.Sprintf("198.18.%d.1", i), fmt.Sprintf("198.18.%d.2", i), extra, static...))
}

// gateway is a State with a session over IPv4, both families, to each ToR.
func gateway(tors int, paths ...bgp.Path) bgp.State {
	s := bgp.State{ASN: 65010, RouterID: addr("198.18.0.2"), Port: 179, Paths: paths}
	for i := range tors {
		s.Neighbors = append(s.Neighbors, bgp.Neighbor{
			Name: fmt.Sprintf("tor-%c", 'a'+i), Address: addr(fmt.Sprintf("198.18.%d.1", i)), ASN: 65000 + uint32(i),
			IPv4: true, IPv6: true, HoldTime: 9 * time.Second, RestartTime: 30 * time.Second,
			NextHop6: addr(fmt.Sprintf("2001:db8:%d::2", i+1)),
		})
	}
	return s
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func path(prefix string, communities ...uint32) bgp.Path {
	return bgp.Path{Prefix: netip.MustParsePrefix(prefix), Communities: communities}
}

func everything() bgp.Learn {
	return bgp.Learn{ECMP: 8, Metric: 20, Accept: []bgp.Filter{{}}}
}

// apply brings the child to want and returns the steps.
func apply(t *testing.T, c *nstest.Child, want bgp.State) []string {
	t.Helper()
	return nstest.Must[[]string](t, c, "apply", want)
}

// sessions prints name and state of every neighbor.
func sessions(t *testing.T, c *nstest.Child) string {
	t.Helper()
	out := ""
	for _, n := range nstest.Must[[]bgp.NeighborStatus](t, c, "status", nil) {
		out += n.Name + " " + n.State + "\n"
	}
	return out
}

func established(t *testing.T, c *nstest.Child, names ...string) time.Duration {
	t.Helper()
	begin, want := time.Now(), ""
	for _, n := range names {
		want += n + " established\n"
	}
	nstest.Eventually(t, 20*time.Second, func() string { return nstest.Want("sessions", sessions(t, c), want) })
	return time.Since(begin)
}

// set prints prefixes in one order.
func set(prefixes ...string) string {
	slices.Sort(prefixes)
	return strings.Join(prefixes, " ")
}

// heard is the set of what BIRD has from its session.
func heard(b *nstest.Bird) (string, error) {
	answer, err := b.Ask("show route protocol sluice")
	var out []string
	for _, line := range strings.Split(answer, "\n") {
		if f := strings.Fields(line); len(f) > 1 && strings.Contains(f[0], "/") {
			out = append(out, f[0])
		}
	}
	return set(out...), err
}

// kernel prints our routes in the gateway's main table.
func (s *site) kernel() (string, error) { return s.kernelTable(unix.RT_TABLE_MAIN) }

func (s *site) kernelTable(table int) (string, error) {
	out := ""
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := s.gw.RouteListFiltered(family, &netlink.Route{Protocol: 186, Table: table}, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
		if err != nil {
			return "", err
		}
		for _, r := range routes {
			out += r.Dst.String()
			if r.Gw != nil {
				out += " " + r.Gw.String()
			}
			for _, nh := range r.MultiPath {
				out += " " + nh.Gw.String()
			}
			out += "\n"
		}
	}
	return out, nil
}

// installs waits until the kernel has these routes, one a line, and no others.
func (s *site) installs(t *testing.T, want string) {
	t.Helper()
	nstest.Eventually(t, 15*time.Second, func() string {
		got, err := s.kernel()
		if err != nil {
			return err.Error()
		}
		return nstest.Want("kernel", got, want)
	})
}

// hears waits until BIRD has these prefixes from us and no others.
func hears(t *testing.T, b *nstest.Bird, prefixes ...string) {
	t.Helper()
	nstest.Eventually(t, 15*time.Second, func() string {
		got, err := heard(b)
		if err != nil {
			return err.Error()
		}
		return nstest.Want("BIRD's table", got, set(prefixes...))
	})
}

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, addr(s))
	}
	return out
}
