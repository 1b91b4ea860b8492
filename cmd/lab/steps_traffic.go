package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// The attack of the flood step, and the gentler one that goes on while the daemon is away. One core of a small machine
// sends, routes and drops all of it, and the client wants a share, too.
const (
	floodRate     = 100_000
	floodDuration = 3 * time.Second
	restartRate   = 20_000
)

// flood: the attack is dropped in XDP, and no request of the client is lost meanwhile.
func (d *demo) flood(ctx context.Context) (string, error) {
	quiet := time.Now()
	if err := d.answered(ctx, 200); err != nil {
		return "", err
	}
	before, err := d.reason(ctx, "xdp", "eth0", "rule-drop")
	if err != nil {
		return "", err
	}
	start := time.Now()
	sent, err := Flood{Rate: floodRate, Duration: floodDuration}.Run(ctx, d.Site)
	if err != nil {
		return "", err
	}
	end := time.Now()
	dropped, err := d.dropped(ctx, before.Packets, sent.Packets)
	if err != nil {
		return "", err
	}
	// The requests of the flood are to be judged: wait for the last of them.
	if err := d.settled(ctx, end); err != nil {
		return "", err
	}
	calm, loaded := d.stream.Between(quiet, start), d.stream.Between(start, end)
	d.noted = fmt.Sprintf("client before: %s\nclient during: %s; median x %.1f", calm, loaded, float64(loaded.Median)/float64(max(calm.Median, 1)))
	figures := fmt.Sprintf("%d spoofed packets sent, %d dropped in XDP by rule-drop, %.0f thousand a second",
		sent.Packets, dropped, float64(dropped)/sent.Took.Seconds()/1000)
	return figures, errors.Join(mostly(dropped, sent.Packets), lossless(loaded))
}

// dropped waits until the XDP counter has seen all that was sent, or stands still.
func (d *demo) dropped(ctx context.Context, base, sent uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var dropped uint64
	_ = poll(ctx, func() error {
		r, err := d.reason(ctx, "xdp", "eth0", "rule-drop")
		if err != nil {
			return err
		}
		if dropped = r.Packets - base; dropped < sent {
			return errors.New("not all yet")
		}
		return nil
	})
	if dropped == 0 {
		return 0, errors.New("XDP dropped nothing of the flood")
	}
	return dropped, nil
}

// mostly: queues on the way may overflow on a busy machine, but the gateway has to have seen nearly everything.
func mostly(dropped, sent uint64) error {
	if sent == 0 || dropped*10 < sent*9 {
		return fmt.Errorf("want at least 90 %% of %d packets dropped in XDP", sent)
	}
	return nil
}

func lossless(l Load) error {
	if l.Lost > 0 {
		return fmt.Errorf("%d of %d requests were lost, the first: %w", l.Lost, l.Sent, l.Err)
	}
	if l.Sent == 0 {
		return errors.New("the client sent no request meanwhile")
	}
	return nil
}

// errNoClient: the client that asks all the time begins once the workloads answer.
var errNoClient = errors.New("there is no client, because HTTP does not work")

// answered waits until the client has n more answers.
func (d *demo) answered(ctx context.Context, n int) error {
	if d.stream == nil {
		return errNoClient
	}
	base := d.stream.Answered()
	return poll(ctx, func() error {
		if now := d.stream.Answered() - base; now < n {
			return fmt.Errorf("%d of %d requests answered", now, n)
		}
		return nil
	})
}

// settled waits until every request that was sent before t is over.
func (d *demo) settled(ctx context.Context, t time.Time) error {
	return poll(ctx, func() error { return d.stream.pendingBefore(t) })
}

// tunnel: a workload is answered by the peer, and the underlay shows nothing but the tunnel's UDP.
func (d *demo) tunnel(ctx context.Context) (string, error) {
	secret, control := "marker-"+randomHex(16), "control-"+randomHex(16)
	capture, err := d.ToR.StartCapture("gateway", secret, control)
	if err != nil {
		return "", err
	}
	took, err := d.throughTunnel(ctx, secret)
	if err == nil {
		// The same marker in the clear, so that a capture that sees nothing does not pass for a proof.
		_, err = d.request(ctx, d.Client, Web4[0], "/"+control, "web-1 /"+control)
	}
	seen, captureErr := capture.Stop()
	if err := errors.Join(err, captureErr); err != nil {
		return "", err
	}
	figures := fmt.Sprintf("web-1 answered by the peer in %s (IPv4), %s (IPv6); underlay: %d UDP packets to port %d, marker in the clear: %d (control: %d)",
		round(took[0]), round(took[1]), seen.Tunnel, TunnelPort, seen.Markers[0], seen.Markers[1])
	switch {
	case seen.Missed > 0:
		return figures, fmt.Errorf("the capture missed %d frames and proves nothing", seen.Missed)
	case seen.Markers[0] > 0:
		return figures, errors.New("plaintext on the underlay")
	case seen.Markers[1] == 0:
		return figures, errors.New("the capture does not even see what is in the clear")
	case seen.Tunnel == 0:
		return figures, errors.New("no packet of the tunnel on the underlay")
	}
	return figures, nil
}

func (d *demo) throughTunnel(ctx context.Context, marker string) (took [2]time.Duration, err error) {
	for i, server := range []netip.Addr{Inner4, Inner6} {
		if took[i], err = d.request(ctx, d.Workload(1), server, "/"+marker, "peer /"+marker); err != nil {
			return took, fmt.Errorf("web-1 to %s through the tunnel: %w", server, err)
		}
	}
	return took, nil
}

// client: over the whole demo, no request was lost.
func (d *demo) client(context.Context) (string, error) {
	if d.stream == nil {
		return "", errNoClient
	}
	d.stream.Stop()
	all := d.stream.Between(time.Time{}, time.Now())
	return "over all of it: " + all.String(), lossless(all)
}
