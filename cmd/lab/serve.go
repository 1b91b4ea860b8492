package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"

	"golang.org/x/sync/errgroup"
)

// startServers runs a small server on every host that is asked for something: the workloads, the client's host (which
// plays the Internet and its resolver) and the peer.
func (s *Site) startServers(ctx context.Context) error {
	for _, ns := range []*Namespace{s.workloads[0], s.workloads[1], s.Client, s.Peer.Namespace} {
		if err := s.startServer(ctx, ns); err != nil {
			return fmt.Errorf("the server of %s: %w", ns.role, err)
		}
	}
	return nil
}

func (s *Site) startServer(ctx context.Context, ns *Namespace) error {
	process, err := ns.Command("serve-"+ns.role, s.options.Binary, "lab", "serve", "--name", ns.role)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return poll(ctx, func() error {
		select {
		case <-process.Done():
			return fatal(fmt.Errorf("it has ended; its log ends:\n%s", tail(process.Log, 2000)))
		default:
			_, err := ns.Get(ctx, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 80), "/")
			return err
		}
	})
}

// RunServers is the main of a host's servers: HTTP on port 80, which answers with the host's name and the path that it
// was asked for, and DNS on port 53, which knows one answer.
func RunServers(ctx context.Context, name string) error {
	listener, err := net.Listen("tcp", "[::]:80")
	if err != nil {
		return err
	}
	// The one socket must reply from the address that was asked, so DNS is bound to each of them.
	dns, err := listenDNS()
	if err != nil {
		return err
	}
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s\n", name, r.URL.Path)
	})}
	tasks, ctx := errgroup.WithContext(ctx)
	tasks.Go(func() error { return serveUntil(ctx, web, listener) })
	for _, conn := range dns {
		tasks.Go(func() error { return serveDNS(ctx, conn) })
	}
	return tasks.Wait()
}

// listenDNS opens port 53 on every address that is no link-local one.
func listenDNS() ([]net.PacketConn, error) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var conns []net.PacketConn
	for _, a := range addresses {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || p.Addr().IsLinkLocalUnicast() {
			continue
		}
		conn, err := net.ListenPacket("udp", netip.AddrPortFrom(p.Addr(), 53).String())
		if err != nil {
			return nil, err
		}
		conns = append(conns, conn)
	}
	return conns, nil
}

func serveDNS(ctx context.Context, conn net.PacketConn) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	query := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(query)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			continue // an ICMP error for an earlier answer
		}
		if answer := answerDNS(query[:n]); answer != nil {
			_, _ = conn.WriteTo(answer, from)
		}
	}
}

// answerDNS gives the client's IPv4 address for a query of type A, and no address for another; nil for what is no query
// with one question (RFC 1035 section 4).
func answerDNS(query []byte) []byte {
	const header, typeA = 12, 1
	if len(query) < header || query[2]&0x80 != 0 || binary.BigEndian.Uint16(query[4:]) != 1 {
		return nil
	}
	end := header
	for end < len(query) && query[end] != 0 { // labels; a question has no compression
		end += 1 + int(query[end])
	}
	end += 5 // the root label, type, class
	if end > len(query) {
		return nil
	}
	answer := append([]byte(nil), query[:end]...)
	binary.BigEndian.PutUint16(answer[2:], 0x8180) // an answer, recursion desired and available, no error
	clear(answer[6:header])                        // no records: the query's EDNS is not repeated
	if binary.BigEndian.Uint16(answer[end-4:]) != typeA {
		return answer
	}
	answer[7] = 1
	answer = append(answer, 0xc0, header, 0, typeA, 0, 1, 0, 0, 0, 60, 0, 4) // the question's name; TTL 60 s
	address := Client4.As4()
	return append(answer, address[:]...)
}
