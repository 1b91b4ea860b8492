package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Get asks for path over a new connection from the namespace, and returns the body.
func (n *Namespace) Get(ctx context.Context, server netip.AddrPort, path string) (string, error) {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return n.Dial(ctx, network, address)
		},
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+server.String()+path, nil)
	if err != nil {
		return "", err
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s answered %s", server, response.Status)
	}
	return string(body), nil
}

// Resolve looks up the IPv4 addresses of name at a DNS server.
func (n *Namespace) Resolve(ctx context.Context, server netip.Addr, name string) ([]netip.Addr, error) {
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return n.Dial(ctx, "udp", netip.AddrPortFrom(server, 53).String())
	}}
	return resolver.LookupNetIP(ctx, "ip4", name)
}

// requestTimeout is when a request counts as lost: late enough for several retransmissions of TCP.
const requestTimeout = 5 * time.Second

// pace is the pause between two requests to one server.
const pace = 10 * time.Millisecond

// Stream is a client that asks several servers without end, each request over a connection of its own. It counts.
type Stream struct {
	stop context.CancelFunc
	wait sync.WaitGroup

	mu      sync.Mutex
	answers []answer
	pending map[netip.Addr]time.Time // when the request was sent that is not answered yet
}

type answer struct {
	sent time.Time
	took time.Duration
	err  error
}

// Load is what became of the requests that were sent in a span of time.
type Load struct {
	Sent, Lost       int
	Median, P99, Max time.Duration // of those that were answered; from 200 ms on, TCP had to send something again
	Err              error         // of the first that was lost
}

func (l Load) String() string {
	return fmt.Sprintf("%d requests, %d lost; median %s, 99 %% within %s, all within %s",
		l.Sent, l.Lost, round(l.Median), round(l.P99), round(l.Max))
}

// StartStream asks every server from the namespace until Stop.
func (n *Namespace) StartStream(ctx context.Context, servers ...netip.Addr) *Stream {
	s := &Stream{pending: map[netip.Addr]time.Time{}}
	ctx, s.stop = context.WithCancel(ctx)
	for _, server := range servers {
		s.wait.Go(func() {
			tick := time.NewTicker(pace)
			defer tick.Stop()
			for ctx.Err() == nil {
				s.ask(ctx, n, netip.AddrPortFrom(server, 80))
				<-tick.C
			}
		})
	}
	return s
}

func (s *Stream) ask(ctx context.Context, n *Namespace, server netip.AddrPort) {
	// A request that was sent is waited for, so that Stop loses none.
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	a := answer{sent: time.Now()}
	s.mu.Lock()
	s.pending[server.Addr()] = a.sent
	s.mu.Unlock()
	_, a.err = n.Get(limited, server, "/stream")
	a.took = time.Since(a.sent)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pending, server.Addr())
	s.answers = append(s.answers, a)
}

// Stop ends the stream. The last requests are waited for.
func (s *Stream) Stop() {
	s.stop()
	s.wait.Wait()
}

// Answered counts the requests that were answered so far.
func (s *Stream) Answered() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, a := range s.answers {
		if a.err == nil {
			n++
		}
	}
	return n
}

// pendingBefore is an error while a request that was sent before t waits for its answer.
func (s *Stream) pendingBefore(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for server, sent := range s.pending {
		if sent.Before(t) {
			return fmt.Errorf("a request to %s waits for its answer", server)
		}
	}
	return nil
}

// Between sums up the requests that were sent in [from, to).
func (s *Stream) Between(from, to time.Time) Load {
	s.mu.Lock()
	defer s.mu.Unlock()
	return load(s.answers, from, to)
}

func load(answers []answer, from, to time.Time) Load {
	var l Load
	var took []time.Duration
	for _, a := range answers {
		if a.sent.Before(from) || !a.sent.Before(to) {
			continue
		}
		l.Sent++
		if a.err == nil {
			took = append(took, a.took)
			continue
		}
		l.Lost++
		if l.Err == nil {
			l.Err = fmt.Errorf("after %s: %w", round(a.took), a.err)
		}
	}
	if len(took) > 0 {
		slices.Sort(took)
		l.Median, l.P99, l.Max = took[len(took)/2], took[len(took)*99/100], took[len(took)-1]
	}
	return l
}

// round keeps three digits or so, for people.
func round(d time.Duration) time.Duration {
	switch {
	case d >= 10*time.Second:
		return d.Round(100 * time.Millisecond)
	case d >= time.Second:
		return d.Round(10 * time.Millisecond)
	case d >= 100*time.Millisecond:
		return d.Round(time.Millisecond)
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond)
	default:
		return d.Round(time.Microsecond)
	}
}

// refused says whether err is that of a connection that nobody answered or somebody refused; any other failure proves
// nothing about a policy.
func refused(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}
