package probe

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Answer is a reply to one request of a Pinger.
type Answer struct {
	From netip.Addr
	Tag  uint64 // of the request
	At   time.Time
}

// Pinger sends single echo requests out of interfaces and hands on the replies, for who probes many addresses without
// end. All requests of a family share one raw socket, whose filter in the kernel takes the replies to them and nothing
// else: a flood of other replies neither wakes the process nor fills the socket. It is safe for concurrent use.
//
// A socket belongs to the network namespace of the thread that first pings in its family.
type Pinger struct {
	answered func(Answer)
	id       [2]byte // of all its requests: one flow for each address, as trackers see it
	nonce    [pingNonceLen]byte

	mu      sync.Mutex
	sockets [2]*net.IPConn // IPv4, IPv6; nil: not needed yet
	closed  bool
	readers sync.WaitGroup
}

// A request's data are the Pinger's nonce and the tag, big endian; as long as those of a Prober.
const (
	pingNonceLen = 8
	pingLen      = headerLen + pingNonceLen + 8
)

// NewPinger makes a Pinger. answered is called for each reply, one at a time in each family; it must not block.
func NewPinger(answered func(Answer)) *Pinger {
	p := &Pinger{answered: answered}
	rand.Read(p.id[:])
	rand.Read(p.nonce[:])
	return p
}

// Close ends all answers.
func (p *Pinger) Close() error {
	p.mu.Lock()
	p.closed = true
	var errs []error
	for _, c := range p.sockets {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	p.mu.Unlock()
	p.readers.Wait()
	return errors.Join(errs...)
}

// Ping sends one request to an address out of the interface called link, whatever routes there are: over IPv4 none is
// needed (and a blackhole does not stop it), over IPv6 one by that interface is. It does not wait for the answer. It
// needs CAP_NET_RAW.
func (p *Pinger) Ping(link string, to netip.Addr, tag uint64) error {
	to = to.Unmap()
	conn, err := p.socket(to.Is6())
	if err != nil {
		return fmt.Errorf("ping %s: %w", to, err)
	}
	index, err := indexOf(conn, link)
	if err != nil {
		return fmt.Errorf("ping %s by %s: %w", to, link, err)
	}
	control := unix.PktInfo4(&unix.Inet4Pktinfo{Ifindex: int32(index)})
	if to.Is6() {
		control = unix.PktInfo6(&unix.Inet6Pktinfo{Ifindex: index})
	}
	if _, _, err := conn.WriteMsgIP(p.request(to.Is6(), tag), control, &net.IPAddr{IP: to.AsSlice()}); err != nil {
		return fmt.Errorf("ping %s by %s: %w", to, link, err)
	}
	return nil
}

// indexOf asks the kernel in the socket's own namespace: a tunnel's device may be another one than a second ago.
func indexOf(conn *net.IPConn, link string) (index uint32, err error) {
	request, err := unix.NewIfreq(link)
	if err != nil {
		return 0, err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	if failed := raw.Control(func(fd uintptr) { err = unix.IoctlIfreq(int(fd), unix.SIOCGIFINDEX, request) }); failed != nil {
		return 0, failed
	}
	return request.Uint32(), err
}

func (p *Pinger) request(v6 bool, tag uint64) []byte {
	m := make([]byte, headerLen, pingLen)
	m[0] = echoRequest4
	if v6 {
		m[0] = echoRequest6 // and the kernel fills in the checksum (RFC 3542)
	}
	copy(m[4:6], p.id[:])
	binary.BigEndian.PutUint16(m[6:], uint16(tag))
	m = binary.BigEndian.AppendUint64(append(m, p.nonce[:]...), tag)
	if !v6 {
		binary.BigEndian.PutUint16(m[2:], checksum(m))
	}
	return m
}

func (p *Pinger) socket(v6 bool) (*net.IPConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, net.ErrClosed
	}
	n, network := 0, "ip4:1"
	if v6 {
		n, network = 1, "ip6:58"
	}
	if c := p.sockets[n]; c != nil {
		return c, nil
	}
	c, err := net.ListenIP(network, nil)
	if err != nil {
		return nil, err
	}
	if err := p.filter(c, v6); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	p.sockets[n] = c
	p.readers.Go(func() { p.read(c) })
	return c, nil
}

// read ends when the socket is closed. Other errors are those of earlier requests (EHOSTUNREACH, say), which the kernel
// tells the socket later.
func (p *Pinger) read(c *net.IPConn) {
	buf := make([]byte, 128)
	for {
		n, from, err := c.ReadFromIP(buf) // without the IPv4 header
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil || n < pingLen:
			continue
		}
		if addr, ok := netip.AddrFromSlice(from.IP); ok {
			p.answered(Answer{From: addr.Unmap(), Tag: binary.BigEndian.Uint64(buf[pingLen-8:]), At: time.Now()})
		}
	}
}

// Where fields are, from the beginning of an ICMP message.
const offsetType, offsetNonce = 0, headerLen

// filter lets replies with the nonce in. A raw IPv4 socket sees the IP header, whose length is in it; an IPv6 one does
// not. What came before the filter stood is thrown away by its length or tells of a tag that nobody waits for.
func (p *Pinger) filter(c *net.IPConn, v6 bool) error {
	const drop, take = 0, 1 << 16
	load := func(size uint16, at uint32) unix.SockFilter {
		mode := uint16(unix.BPF_IND) // from X on
		if v6 {
			mode = unix.BPF_ABS
		}
		return unix.SockFilter{Code: unix.BPF_LD | size | mode, K: at}
	}
	var program []unix.SockFilter
	reply := uint32(echoReply6)
	if !v6 {
		reply = echoReply4
		program = append(program, unix.SockFilter{Code: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH}) // X = length of the IP header
	}
	for left, test := range []struct {
		size      uint16
		at, value uint32
	}{
		{unix.BPF_W, offsetNonce + 4, binary.BigEndian.Uint32(p.nonce[4:])},
		{unix.BPF_W, offsetNonce, binary.BigEndian.Uint32(p.nonce[:])},
		{unix.BPF_B, offsetType, reply},
	} {
		// Of three tests the first has four instructions between it and the drop at the end, the last none but the return.
		over := uint8(1 + 2*(2-left))
		program = append(program, load(test.size, test.at),
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: over, K: test.value})
	}
	program = append(program, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: take}, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: drop})
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	failed := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	})
	return errors.Join(failed, err)
}
