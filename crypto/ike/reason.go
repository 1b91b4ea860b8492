package ike

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/strongswan/govici/vici"
)

// reasons remembers why charon could not establish connections. It tells that in its log alone, which VICI hands out: each line bears
// the name of its IKE_SA's connection, once that is known.
type reasons struct {
	mu     sync.Mutex
	byName map[string]reason
}

type reason struct {
	sa   string // charon's number of the IKE_SA that failed
	text string
}

// telling are the lines of charon 5.9 that say why, and what they mean where they do not say that by themselves. The first of an
// IKE_SA counts: what follows from it comes later.
var telling = []struct{ begins, means string }{
	{"no issuer certificate found for", "its certificate is of a CA that is not in ca_files"},
	{"subject certificate invalid", "its certificate has expired or is not valid yet"},
	{"issuer certificate invalid", "the certificate of its CA has expired or is not valid yet"},
	{"certificate was revoked", "its certificate was revoked"},
	{"constraint check failed", "its certificate is of a CA that is not in ca_files, or for another id"},
	{"no trusted ", "its certificate is not for this id, or not trusted"},
	{"signature validation failed", "its private key does not belong to its certificate"},
	{"no private key found for", "charon has no private key for this end's certificate"},
	{"no shared key found for", "charon has no preshared key for these ids"},
	{"tried 1 shared key for", "it has another preshared key"},
	{"received AUTHENTICATION_FAILED notify error", "it refuses this end: another preshared key, or our certificate or id, or its CAs; its own show tunnels or log says which"},
	{"received NO_PROPOSAL_CHOSEN notify error", "it takes none of our proposals"},
	{"received TS_UNACCEPTABLE notify", "it does not take our prefixes"},
	{"no acceptable proposal found", "none of its proposals is one of ours"},
	{"received proposals unacceptable", "none of its proposals is one of ours"},
	{"no matching peer config found", "it calls itself otherwise, or calls this end so"},
	{"giving up after", "it does not answer"},
}

// longest is how much of a line is kept: it has names in it that a peer has chosen.
const longest = 300

// listen keeps reasons until ctx ends or stop is called. It has a connection of its own, for the log has many lines.
func (c *Client) listen(ctx context.Context) (stop func(), err error) {
	s, err := open(ctx, c.socket)
	if err != nil {
		return nil, err
	}
	lines := make(chan vici.Event, 256)
	s.NotifyEvents(lines)
	if err := s.subscribe(ctx, "log"); err != nil {
		s.close()
		return nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e := range lines { // closed by the library when the connection ends
			l := newSection(e.Message)
			c.reasons.hear(l.text("ikesa-name"), l.text("ikesa-uniqueid"), l.text("msg"))
		}
	}()
	return func() { s.close(); <-done }, nil
}

func (r *reasons) hear(name, sa, line string) {
	if !strings.HasPrefix(name, prefix) {
		return
	}
	line = strings.TrimSpace(line)
	for _, x := range telling {
		if !strings.HasPrefix(line, x.begins) {
			continue
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.byName == nil {
			r.byName = map[string]reason{}
		}
		if r.byName[name].sa != sa {
			r.byName[name] = reason{sa, fmt.Sprintf("%s (charon: %.*s)", x.means, longest, strings.ToValidUTF8(line, "?"))}
		}
		return
	}
}

func (r *reasons) of(name string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byName[name].text
}

func (r *reasons) forget(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byName, name)
}
