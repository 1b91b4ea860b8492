package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/bgp"
	"sluice/bgp/bfd"
	"sluice/control/api"
)

var (
	descSession      = desc("bgp_session_up", "1 where the BGP session is established.", "neighbor")
	descSessionState = desc("bgp_session_state", "1 for the state that the BGP session is in; down says why it is kept down, where it is.", "neighbor", "state", "down")
	descUptime       = desc("bgp_session_uptime_seconds", "How long the BGP session is up.", "neighbor")
	descFlaps        = desc("bgp_session_flaps_total", "BGP sessions that were lost.", "neighbor")
	descMessages     = desc("bgp_messages_total", "BGP messages; type is open, update, notification, keepalive or route-refresh.", "neighbor", "direction", "type")
	descPrefixes     = desc("bgp_prefixes", "Prefixes of a session by family; direction is received, accepted or advertised, or first-as: received, and refused by enforce_first_as.", "neighbor", "family", "direction")
	descBFD          = desc("bfd_session_up", "1 where the BFD session with the neighbor is up.", "neighbor")
	descFailures     = desc("bfd_failures_total", "How often the BFD session with the neighbor went down, but for being switched off; since the BFD process started.", "neighbor")
	descDiscards     = desc("bfd_discarded_packets_total", "BFD packets that were not believed; since the BFD process started.", "reason")
	descNotified     = desc("bgp_last_notification_timestamp_seconds", "When the last NOTIFICATION was sent or received.", "neighbor", "direction", "code", "subcode")
)

// Neighbor looks at one BGP neighbor.
func (d *Daemon) Neighbor(ctx context.Context, r api.NeighborRequest) (api.NeighborDetail, error) {
	out := api.NeighborDetail{Table: r.Table, Paths: []api.Path{}}
	if r.Limit < 0 || r.Table != "" && !slices.Contains(bgp.Tables, r.Table) {
		return out, refused(fmt.Errorf("table %q, limit %d: want one of %v, and a limit from 1 on", r.Table, r.Limit, bgp.Tables))
	}
	neighbors, err := d.bgp.Status(ctx)
	if err != nil {
		return out, err
	}
	i := slices.IndexFunc(neighbors, func(n bgp.NeighborStatus) bool { return n.Name == r.Name })
	if i < 0 {
		return out, refused(fmt.Errorf("%w: %s", bgp.ErrNoNeighbor, r.Name))
	}
	if out.Neighbor = neighbors[i]; r.Table == "" {
		return out, nil
	}
	out.Paths, out.Total, err = d.bgp.NeighborTable(r.Name, r.Table, cmp.Or(r.Limit, api.DefaultPaths))
	out.Paths = listed(out.Paths)
	return out, neighborError(err)
}

// Routes reads learned routes.
func (d *Daemon) Routes(_ context.Context, r api.RoutesRequest) (api.Routes, error) {
	about, err := captureHost(r.About)
	if err = errors.Join(err, atLeast(r.Limit, "routes", api.DefaultPaths)); err != nil {
		return api.Routes{}, refused(err)
	}
	q := bgp.RouteQuery{About: about, Limit: cmp.Or(r.Limit, api.DefaultPaths)}
	if r.Count {
		q.Limit = 1
	}
	out := d.bgp.Routes(q)
	if out.Routes = listed(out.Routes); r.Count {
		out.Routes = []api.Route{}
	}
	return out, nil
}

// ClearBGP resets a session.
func (d *Daemon) ClearBGP(ctx context.Context, r api.ClearBGPRequest) (api.BGPCleared, error) {
	err := d.bgp.Clear(ctx, r.Neighbor, r.Soft)
	if err == nil {
		d.opts.Log.Info("a BGP session was cleared", "neighbor", r.Neighbor, "soft", r.Soft)
	}
	return api.BGPCleared(r), neighborError(err)
}

// neighborError: a neighbor that is not there is who asked's affair.
func neighborError(err error) error {
	if errors.Is(err, bgp.ErrNoNeighbor) {
		return refused(err)
	}
	return err
}

func (c collector) bgp(ctx context.Context, out chan<- prometheus.Metric) error {
	refusals(out, c.d.bgp.FIB())
	neighbors, err := c.d.bgp.Status(ctx)
	for _, n := range neighbors {
		neighborMetrics(out, n)
		bfdMetrics(out, n)
	}
	discards, failed := c.d.bgp.Discards()
	for reason, n := range discards {
		counter(out, descDiscards, n, reason)
	}
	return errors.Join(err, failed)
}

// bfdMetrics are none for a neighbor without BFD.
func bfdMetrics(out chan<- prometheus.Metric, n bgp.NeighborStatus) {
	if n.BFD == nil {
		return
	}
	up := 0.0
	if n.BFD.State == bfd.Up {
		up = 1
	}
	gauge(out, descBFD, up, n.Name)
	counter(out, descFailures, n.BFD.Failures, n.Name)
}

func neighborMetrics(out chan<- prometheus.Metric, n bgp.NeighborStatus) {
	up := 0.0
	if n.State == established {
		up = 1
	}
	gauge(out, descSession, up, n.Name)
	gauge(out, descSessionState, 1, n.Name, n.State, n.Down)
	gauge(out, descUptime, float64(n.UptimeSeconds), n.Name)
	counter(out, descFlaps, n.Flaps, n.Name)
	for _, f := range n.Families {
		gauge(out, descPrefixes, float64(f.Received), n.Name, f.Family, "received")
		gauge(out, descPrefixes, float64(f.Accepted), n.Name, f.Family, "accepted")
		gauge(out, descPrefixes, float64(f.Advertised), n.Name, f.Family, "advertised")
		gauge(out, descPrefixes, float64(f.OtherFirstAS), n.Name, f.Family, "first-as")
	}
	for direction, m := range map[string]bgp.MessageCounts{"sent": n.Sent, "received": n.Received} {
		counter(out, descMessages, m.Open, n.Name, direction, "open")
		counter(out, descMessages, m.Update, n.Name, direction, "update")
		counter(out, descMessages, m.Notification, n.Name, direction, "notification")
		counter(out, descMessages, m.Keepalive, n.Name, direction, "keepalive")
		counter(out, descMessages, m.RouteRefresh, n.Name, direction, "route-refresh")
	}
	// Its text is the neighbor's, and no label.
	if last := n.Notification; last != nil {
		direction := map[bool]string{true: "sent", false: "received"}[last.Sent]
		gauge(out, descNotified, float64(last.Time.UnixMilli())/1000, n.Name, direction, fmt.Sprint(last.Code), fmt.Sprint(last.Subcode))
	}
}
