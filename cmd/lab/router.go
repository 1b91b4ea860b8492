package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"time"

	"sluice/bgp"
	"sluice/bgp/torsim"
)

// The two autonomous systems of the site.
const (
	torASN     = 65000
	gatewayASN = 65010
)

// Table is what the ToR's router knows at one moment.
type Table struct {
	Sessions []bgp.NeighborStatus `json:"sessions"`
	Entries  []torsim.Entry       `json:"entries"`
}

// Established counts the sessions that are up.
func (t Table) Established() int {
	n := 0
	for _, s := range t.Sessions {
		if s.State == "established" {
			n++
		}
	}
	return n
}

// Stale counts the entries that are kept for a neighbor that restarts.
func (t Table) Stale() int {
	n := 0
	for _, e := range t.Entries {
		if e.Stale {
			n++
		}
	}
	return n
}

// Router is the lab's view of the ToR's router, which is a process of its own.
type Router struct {
	Process *Process
	http    *http.Client
}

func (s *Site) startRouter(ctx context.Context) (*Router, error) {
	socket := filepath.Join(s.Dir, "tor.sock")
	process, err := s.ToR.Command("tor", s.options.Binary, "lab", "tor", "--listen", socket)
	if err != nil {
		return nil, err
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	r := &Router{Process: process, http: &http.Client{Transport: &http.Transport{DialContext: dial}}}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err = poll(ctx, func() error {
		select {
		case <-process.Done():
			return fatal(fmt.Errorf("it has ended; its log ends:\n%s", tail(process.Log, 2000)))
		default:
			_, err := r.Table(ctx)
			return err
		}
	})
	if err != nil {
		return nil, fmt.Errorf("the ToR's router: %w", err)
	}
	return r, nil
}

// startTimeout is how long a small process may take to listen, on a machine that is busy with other things.
const startTimeout = 15 * time.Second

// Table asks the router.
func (r *Router) Table(ctx context.Context) (Table, error) {
	var t Table
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://tor/", nil)
	if err != nil {
		return t, err
	}
	response, err := r.http.Do(request)
	if err != nil {
		return t, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return t, fmt.Errorf("the ToR's router answered %s", response.Status)
	}
	return t, json.NewDecoder(response.Body).Decode(&t)
}

// torConfig is the router's configuration: it announces the way to everywhere, and forwards to what it hears.
func torConfig() torsim.Config {
	install := func(prefix string, le int) bgp.Filter {
		p := netip.MustParsePrefix(prefix)
		return bgp.Filter{PrefixMatch: bgp.PrefixMatch{Prefix: p, GE: p.Bits(), LE: le}}
	}
	return torsim.Config{
		ASN: torASN, RouterID: ToRAddress4, Port: 179,
		Neighbors: []bgp.Neighbor{
			{Name: "gateway", Address: Gateway4, Port: 179, ASN: gatewayASN, IPv4: true, HoldTime: 90 * time.Second},
			{Name: "gateway-v6", Address: Gateway6, Port: 179, ASN: gatewayASN, IPv6: true, HoldTime: 90 * time.Second},
		},
		Announce: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")},
		Install: bgp.Learn{ECMP: 1, Metric: 20, Accept: []bgp.Filter{
			install("203.0.113.0/24", 32), install("2001:db8:100::/48", 128),
		}},
	}
}

// RunRouter is the main of the ToR's router: it speaks BGP in this process's namespace and answers with its Table on
// the unix socket until ctx ends.
func RunRouter(ctx context.Context, socket string, log *slog.Logger) error {
	router := torsim.New(log)
	if err := router.Start(ctx, torConfig()); err != nil {
		return err
	}
	defer func() { _ = router.Stop(context.WithoutCancel(ctx)) }()
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		entries, err := router.Table()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		sessions, err := router.Sessions(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(Table{Sessions: sessions, Entries: entries})
	})}
	return serveUntil(ctx, server, listener)
}

// serveUntil serves until ctx ends, which is no error.
func serveUntil(ctx context.Context, server *http.Server, listener net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
