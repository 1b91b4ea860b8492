package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"
)

// A server is asked resolveTries times and waited for resolvePatience each: a datagram that is lost costs little, and so does
// a server that is.
const (
	resolveTries    = 2
	resolvePatience = 1500 * time.Millisecond
)

const dnsPort = 53

// Resolver asks DNS servers for addresses, one after the other until one knows. /etc/hosts is looked at first.
type Resolver struct {
	// Servers are asked; none: those that File names.
	Servers func() []netip.Addr
	File    string // in the form of resolv.conf(5)
}

// Resolve is Options.Resolve: IPv4 and IPv6, each address once.
func (r Resolver) Resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	servers := r.Servers()
	if len(servers) == 0 {
		var err error
		if servers, err = serversOf(r.File); err != nil {
			return nil, err
		}
	}
	if len(servers) == 0 {
		return nil, fmt.Errorf("no DNS server is known: write node.dns, or a nameserver into %s", r.File)
	}
	var failed error
	for _, server := range servers {
		addresses, err := ask(ctx, server, host)
		if err == nil {
			return addresses, nil
		}
		failed = err
		var dns *net.DNSError
		if ctx.Err() != nil || errors.As(err, &dns) && dns.IsNotFound {
			break // an answer: there is no such name, or it has no addresses
		}
	}
	return nil, failed
}

func ask(ctx context.Context, server netip.Addr, host string) (out []netip.Addr, err error) {
	for range resolveTries {
		out, err = try(ctx, server, host)
		var dns *net.DNSError
		if ctx.Err() != nil || !errors.As(err, &dns) || !dns.IsTimeout {
			break
		}
	}
	return out, err
}

// try asks for the name as it is written: search domains are for people, and would have others say where packets go.
func try(ctx context.Context, server netip.Addr, host string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, resolvePatience)
	defer cancel()
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, netip.AddrPortFrom(server, dnsPort).String())
	}}
	found, err := resolver.LookupNetIP(ctx, "ip", strings.TrimSuffix(host, ".")+".")
	var dns *net.DNSError
	if errors.As(err, &dns) {
		dns.Server, dns.Name = server.String(), host // the library names the server that it would have asked
	}
	var out []netip.Addr
	for _, a := range found {
		if a = a.Unmap(); !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out, err
}

// serversOf reads the nameserver lines of a file each time: DHCP writes it when it pleases.
func serversOf(file string) ([]netip.Addr, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("DNS servers: %w; write node.dns", err)
	}
	var out []netip.Addr
	for line := range strings.Lines(string(data)) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(words[1]); err == nil {
			out = append(out, a)
		}
	}
	return out, nil
}
