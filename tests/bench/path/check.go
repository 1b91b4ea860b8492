package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"sluice/tests/bench/lane"
)

// How long a connection is waited for: one that is to be dropped until the kernel's second SYN, one that is to come about longer.
const (
	patience = 1500 * time.Millisecond
	deadline = 10 * time.Second
)

// errPretends says that a lane does not do what it claims.
var errPretends = errors.New("it does not do what it claims")

// check holds every lane to what it claims: what is served arrives, what is denied does not where the lane denies, and
// does where it does not; and the kernel forwards where the lane does not bypass it.
func (g *group) check(ctx context.Context) error {
	checking, ctx := errgroup.WithContext(ctx)
	checking.SetLimit(4)
	for _, l := range g.lanes {
		checking.Go(func() error {
			if err := l.check(ctx); err != nil {
				return fmt.Errorf("%s: %w", l, err)
			}
			return nil
		})
	}
	return checking.Wait()
}

func (l *pathLane) check(ctx context.Context) error {
	server, address := l.server()
	const unserved = 6001
	for _, port := range []uint16{requestPort, unserved} {
		listener, err := listen(ctx, server, port)
		if err != nil {
			return err
		}
		defer listener.Close()
	}
	before, err := l.forwarded()
	if err != nil {
		return err
	}
	targets := []struct {
		what    string
		to      netip.AddrPort
		arrives bool
	}{
		{"what is served", netip.AddrPortFrom(address, requestPort), true},
		{"a port that is not served", netip.AddrPortFrom(address, unserved), !l.Strict},
		{"a denied address", netip.AddrPortFrom(deniedServer, requestPort), !l.Denies},
	}
	if l.Key == Node {
		targets = targets[:2] // behind nothing
	}
	for _, t := range targets {
		wait := patience
		if t.arrives {
			wait = deadline
		}
		arrived, err := reaches(ctx, l.client(), t.to, wait)
		if err != nil {
			return err
		}
		if arrived != t.arrives {
			return fmt.Errorf("%w: %s (%s) arrives: %v, should: %v", errPretends, t.what, t.to, arrived, t.arrives)
		}
	}
	after, err := l.forwarded()
	if err == nil && l.Key != Node && (after > before) == l.Bypass {
		err = fmt.Errorf("%w: the kernel forwarded %d packets in the client's gateway", errPretends, after-before)
	}
	return err
}

// listen accepts and closes connections until it is closed.
func listen(ctx context.Context, at *lane.Namespace, port uint16) (listener net.Listener, err error) {
	err = at.Do(func() error {
		listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp4", fmt.Sprintf(":%d", port))
		return err
	})
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	return listener, nil
}

// reaches says whether a connection comes about. One that is refused is an error: nothing here rejects.
func reaches(ctx context.Context, from *lane.Namespace, to netip.AddrPort, wait time.Duration) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	var c net.Conn
	err := from.Do(func() (err error) {
		c, err = (&net.Dialer{}).DialContext(ctx, "tcp4", to.String())
		return err
	})
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, c.Close()
}

// forwarded counts the packets that the kernel forwarded in the client's gateway.
func (l *pathLane) forwarded() (packets uint64, err error) {
	err = l.site.A.Box.Do(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/snmp")
		if err != nil {
			return err
		}
		var names []string
		for line := range strings.Lines(string(text)) {
			words := strings.Fields(line)
			if len(words) == 0 || words[0] != "Ip:" {
				continue
			}
			if names == nil {
				names = words
				continue
			}
			for i, name := range names {
				if name == "ForwDatagrams" {
					packets, err = strconv.ParseUint(words[i], 10, 64)
					return err
				}
			}
		}
		return errors.New("/proc/net/snmp tells no ForwDatagrams")
	})
	return packets, err
}
