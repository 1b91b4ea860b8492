package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/control/api"
	"sluice/plural"
)

func (c *cli) monitorCmd() *cobra.Command {
	var request api.MonitorRequest
	cmd := &cobra.Command{
		Use:   "monitor",
		Short: "Follow what happens: revisions, sessions, links, bans, logs; with --drops and --flows those too",
		Long: `One line for each event until Ctrl-C; with -o json, one JSON object a line. Packets of rules with log: are among them. Of
dropped packets it shows samples, and says how many it did not show: the counters of show drops have them all. Of flows it shows that
one is new, that it is proven (who opened it sees the answers), that it is closed, or that policy revoked it. It goes on when the daemon is restarted.`,
		Example: `  sluice monitor
  sluice monitor --flows
  sluice monitor --drops -o json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			show := c.printEvent
			if c.json() {
				lines := json.NewEncoder(c.out)
				lines.SetEscapeHTML(false)
				show = func(e api.Event) error { return lines.Encode(e) }
			}
			err := c.follow(cmd.Context(), request, show)
			if errors.Is(err, context.Canceled) {
				return nil // Ctrl-C is how it ends
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&request.Drops, "drops", false, "samples of dropped packets as well")
	cmd.Flags().BoolVar(&request.Flows, "flows", false, "what becomes of flows as well")
	return cmd
}

// again is between two looks for a daemon that has ended.
const again = time.Second

// follow outlives the daemon: it says that this has ended, and goes on with the next one, which begins as the first did.
func (c *cli) follow(ctx context.Context, request api.MonitorRequest, show func(api.Event) error) error {
	begun, told := false, false
	for {
		err := c.client().Monitor(ctx, request, func(e api.Event) error {
			begun, told = true, false
			return show(e)
		})
		if !begun || !errors.Is(err, api.ErrUnreachable) {
			return err
		}
		if !told {
			told = true
			if err := show(api.Event{Time: c.now(), Type: api.EventNote, Text: "the daemon has ended: what happens until it is back is not shown"}); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(again):
		}
	}
}

func (c *cli) printEvent(e api.Event) error {
	_, err := fmt.Fprintf(c.out, "%s %-6s %s\n", e.Time.Local().Format("15:04:05.000"), e.Type, eventText(e))
	return err
}

func eventText(e api.Event) string {
	switch {
	case e.Type == api.EventBegin:
		return "following events; Ctrl-C ends it"
	case e.Type == api.EventUnseen && e.Text == api.UnseenFlows:
		return plural.Of(e.Count, "more event of flows is", "more events of flows are") + " not shown: too many at once"
	case e.Type == api.EventUnseen:
		return plural.Of(e.Count, "more packet was dropped and is", "more packets were dropped and are") + " not shown: too many at once"
	case e.Type == api.EventLost:
		return plural.Of(e.Count, "event is", "events are") + " missing here: they came faster than they were read"
	case e.Engine != nil && e.Engine.Revision == 0:
		return strings.TrimSpace(string(e.Engine.Kind) + " " + e.Engine.Text)
	case e.Engine != nil:
		return strings.TrimSuffix(fmt.Sprintf("revision %d %s: %s", e.Engine.Revision, e.Engine.Kind, e.Engine.Text), ": ")
	case e.BGP != nil && e.BGP.Kind == api.RoutesTaken:
		return e.BGP.Reason
	case e.BGP != nil:
		what := map[api.SessionKind]string{api.SessionUp: "is up", api.SessionDown: "is down", api.SessionNearly: "announces much",
			api.SessionLimit: "announces too much", api.SessionLive: "has its BFD session up", api.SessionDead: "has its BFD session down"}
		return strings.TrimSuffix(fmt.Sprintf("neighbor %s (%s) %s: %s", e.BGP.Neighbor, e.BGP.Address, what[e.BGP.Kind], e.BGP.Reason), ": ")
	case e.Link != nil:
		return linkText(*e.Link)
	case e.Ban != nil:
		return banText(e)
	case e.Filter != nil:
		return filterText(e)
	case e.SetFile != nil:
		return setText(*e.SetFile)
	case e.Tunnel != nil:
		return strings.TrimPrefix(e.Tunnel.Tunnel+": "+e.Tunnel.Text, ": ") // charon is no tunnel's
	case e.Drop != nil:
		why := strings.TrimSpace(e.Drop.Reason + " " + e.Drop.Rule + e.Drop.Ban + e.Drop.Filter)
		return packetText(e.Drop.Packet) + " " + why
	case e.Flow != nil:
		return flowText(*e.Flow)
	case e.Log != nil:
		return packetText(e.Log.Packet) + " " + e.Log.Verdict + " " + e.Log.Rule + e.Log.Filter
	}
	return e.Text
}

func setText(s api.SetFile) string {
	if s.Error != "" {
		first, _, _ := strings.Cut(s.Error, "\n")
		return fmt.Sprintf("%s of set %s is not good, its %s of before stay: %s", s.File, strings.Join(s.Sets, " "), plural.Of(s.Prefixes, "prefix", "prefixes"), first)
	}
	if s.Added+s.Removed == 0 {
		return fmt.Sprintf("%s of set %s is good again, and holds its %s of before", s.File, strings.Join(s.Sets, " "), plural.Of(s.Prefixes, "prefix", "prefixes"))
	}
	return fmt.Sprintf("%s of set %s changed: %s, %d more and %d less", s.File, strings.Join(s.Sets, " "), plural.Of(s.Prefixes, "prefix", "prefixes"), s.Added, s.Removed)
}

func linkText(l api.Link) string {
	state := "is down"
	switch {
	case !l.Exists:
		state = "is gone"
	case l.Up && l.Carrier:
		state = "is up"
	case l.Up:
		state = "has no carrier"
	}
	if l.Addresses {
		state += ", its addresses changed"
	}
	return l.Name + " " + state
}

func banText(e api.Event) string {
	text := e.Ban.Target + " " + e.Text
	if e.Text == "banned" {
		text += " " + untilText(e.Ban.Until)
	}
	return text + prefixed(", by ", e.Ban.By) + prefixed(": ", e.Ban.Why) + beforeText(*e.Ban)
}

// packetText is where and what.
func packetText(d api.Packet) string {
	words := []string{d.Interface, d.Hook}
	if d.Source.IsValid() {
		words = append(words, d.Protocol, endpointText(d.Source, d.SourcePort), ">", endpointText(d.Destination, d.DestinationPort))
	}
	if d.TCPFlags != "" {
		words = append(words, "flags="+d.TCPFlags)
	}
	if d.ICMPType != nil {
		words = append(words, fmt.Sprintf("type=%d", *d.ICMPType))
	}
	if d.Fragment {
		words = append(words, "fragment")
	}
	if d.VLAN != 0 {
		words = append(words, fmt.Sprintf("vlan=%d", d.VLAN))
	}
	return strings.Join(append(words, fmt.Sprintf("len=%d", d.Length)), " ")
}

func endpointText(a netip.Addr, port *uint16) string {
	if port == nil {
		return a.String()
	}
	return netip.AddrPortFrom(a, *port).String()
}
