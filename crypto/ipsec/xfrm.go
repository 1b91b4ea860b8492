package ipsec

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"sluice/netdump"
)

// xfrm speaks to the kernel's IPsec stack in the namespace of the thread that called dial. The messages are our own, for
// the netlink library cannot set XFRM_STATE_AF_UNSPEC and reads no extended sequence numbers; it has the structs.
type xfrm struct {
	mu     sync.Mutex
	socket *nl.SocketHandle // nil until it is needed: the kernel may have no xfrm_user
	ns     netns.NsHandle
}

// openXFRM remembers the namespace; the socket comes with the first request.
func openXFRM() (*xfrm, error) {
	ns, err := netns.Get()
	if err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	return &xfrm{ns: ns}, nil
}

func (x *xfrm) close() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.socket != nil {
		x.socket.Close()
	}
	x.ns.Close()
}

// sa is one state. An address, number or time is as the kernel has it now; key is only written.
type sa struct {
	src, dst     netip.Addr
	spi          uint32
	reqid, ifID  uint32
	mark         uint32 // set on what it sends; 0: none
	window       int    // of replay, packets
	sport, dport uint16 // UDP encapsulation; 0: none
	key          keyMaterial
	told         bool // only written, for receiving in UDP: that packets come from elsewhere is told once in mappingPause

	packets, bytes uint64 // that were sent, or were authenticated
	failed         uint32 // packets that were not authentic
	replayed       uint32
	added, used    int64  // seconds since 1970, wall clock; used 0: never
	seq            uint64 // last that was sent, or highest received
}

// policy direction, by the kernel's numbers.
type way uint8

const (
	in  = way(netlink.XFRM_DIR_IN)
	out = way(netlink.XFRM_DIR_OUT)
	fwd = way(netlink.XFRM_DIR_FWD)
)

// policy says that packets between anywhere and a prefix need a state of a peer. remote is the peer's end of the tunnel:
// for packets that come in it is not asked, since the reqid says whose state it was.
type policy struct {
	way           way
	prefix        netip.Prefix // destination on the way out, source on the ways in
	ifID, reqid   uint32
	local, remote netip.Addr
}

// request builds a message to which the kernel answers with an error or none.
func (x *xfrm) request(kind, flags int) (*nl.NetlinkRequest, error) {
	if x.socket == nil {
		s, err := nl.GetNetlinkSocketAt(x.ns, netns.None(), unix.NETLINK_XFRM)
		if err != nil {
			return nil, err
		}
		x.socket = &nl.SocketHandle{Socket: s}
	}
	req := nl.NewNetlinkRequest(kind, flags)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_XFRM: x.socket}
	return req, nil
}

// do sends one message of parts.
func (x *xfrm) do(kind, flags int, parts ...nl.NetlinkRequestData) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	req, err := x.request(kind, flags|unix.NLM_F_ACK)
	if err != nil {
		return err
	}
	for _, p := range parts {
		req.AddData(p)
	}
	_, err = req.Execute(unix.NETLINK_XFRM, 0)
	return err
}

// dump returns the kernel's answers of one kind.
func (x *xfrm) dump(kind, answer int) ([][]byte, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return netdump.List(func() ([][]byte, error) {
		req, err := x.request(kind, unix.NLM_F_DUMP)
		if errors.Is(err, unix.EPROTONOSUPPORT) {
			return nil, nil // no xfrm_user: nothing can be there
		}
		if err != nil {
			return nil, err
		}
		return req.Execute(unix.NETLINK_XFRM, uint16(answer))
	})
}

func (x *xfrm) addState(s sa) error {
	info := &nl.XfrmUsersaInfo{Family: family(s.dst), Mode: uint8(netlink.XFRM_MODE_TUNNEL), Reqid: s.reqid}
	info.Id = nl.XfrmId{Daddr: address(s.dst), Spi: nl.Swap32(s.spi), Proto: unix.IPPROTO_ESP}
	info.Saddr = address(s.src)
	// Without AF_UNSPEC a state carries packets of its own family only.
	info.Flags = nl.XFRM_STATE_ESN | nl.XFRM_STATE_AF_UNSPEC
	info.Lft = forever()
	parts := []nl.NetlinkRequestData{info, aead(s.key), attr(nl.XFRMA_IF_ID, s.ifID), replay(s.window)}
	if s.mark != 0 {
		// The mask is all bits: the encrypted packet is the node's own, and no mark of the inner one is to show on it.
		parts = append(parts, attr(nl.XFRMA_SET_MARK, s.mark), attr(nl.XFRMA_SET_MARK_MASK, ^uint32(0)))
	}
	if s.dport != 0 {
		encap := &nl.XfrmEncapTmpl{EncapType: uint16(netlink.XFRM_ENCAP_ESPINUDP), EncapSport: nl.Swap16(s.sport), EncapDport: nl.Swap16(s.dport)}
		parts = append(parts, nl.NewRtAttr(nl.XFRMA_ENCAP, encap.Serialize()))
	}
	if s.told {
		parts = append(parts, attr(mappingThreshold, mappingPause))
	}
	return x.do(nl.XFRM_MSG_NEWSA, unix.NLM_F_CREATE|unix.NLM_F_EXCL, parts...)
}

// aead is rfc4106(gcm(aes)) with a key of 256 bits, its salt behind it, and an ICV of 128.
func aead(key keyMaterial) *nl.RtAttr {
	secret := key()
	a := &nl.XfrmAlgoAEAD{AlgKeyLen: keySize * 8, AlgICVLen: icvBits, AlgKey: secret[:]}
	copy(a.AlgName[:], "rfc4106(gcm(aes))")
	return nl.NewRtAttr(nl.XFRMA_ALG_AEAD, a.Serialize())
}

// replay is struct xfrm_replay_state_esn; a state for sending needs a window as well before 6.10.
func replay(window int) *nl.RtAttr {
	r := &nl.XfrmReplayStateEsn{ReplayWindow: uint32(window), BmpLen: uint32(window+31) / 32}
	return nl.NewRtAttr(nl.XFRMA_REPLAY_ESN_VAL, r.Serialize())
}

// deleteState takes a state away; one that is gone is no error.
func (x *xfrm) deleteState(s sa) error {
	id := &nl.XfrmUsersaId{Daddr: address(s.dst), Spi: nl.Swap32(s.spi), Family: family(s.dst), Proto: unix.IPPROTO_ESP}
	err := x.do(nl.XFRM_MSG_DELSA, 0, id, attr(nl.XFRMA_IF_ID, s.ifID))
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// setPolicy adds p, or replaces the template of the policy that has p's selector, in one step.
func (x *xfrm) setPolicy(p policy) error {
	info := &nl.XfrmUserpolicyInfo{Sel: p.selector(), Priority: p.priority(), Dir: uint8(p.way), Lft: forever()}
	t := &nl.XfrmUserTmpl{Family: family(p.local), Reqid: p.reqid, Mode: uint8(netlink.XFRM_MODE_TUNNEL),
		Aalgos: ^uint32(0), Ealgos: ^uint32(0), Calgos: ^uint32(0)}
	t.XfrmId.Proto = unix.IPPROTO_ESP
	if p.way == out {
		t.XfrmId.Daddr, t.Saddr = address(p.remote), address(p.local)
	} else {
		t.XfrmId.Daddr = address(p.local) // any source: a peer may change its address
	}
	return x.do(nl.XFRM_MSG_UPDPOLICY, unix.NLM_F_CREATE, info, nl.NewRtAttr(nl.XFRMA_TMPL, t.Serialize()), attr(nl.XFRMA_IF_ID, p.ifID))
}

// deletePolicy takes the policy of p's selector away; one that is gone is no error.
func (x *xfrm) deletePolicy(p policy) error {
	err := x.do(nl.XFRM_MSG_DELPOLICY, 0, &nl.XfrmUserpolicyId{Sel: p.selector(), Dir: uint8(p.way)}, attr(nl.XFRMA_IF_ID, p.ifID))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// priority lets the longer prefix win: the kernel looks at priorities only.
func (p policy) priority() uint32 { return uint32(1000 + p.prefix.Addr().BitLen() - p.prefix.Bits()) }

func (p policy) selector() nl.XfrmSelector {
	s := nl.XfrmSelector{Family: family(p.prefix.Addr())}
	if p.way == out {
		s.Daddr, s.PrefixlenD = address(p.prefix.Addr()), uint8(p.prefix.Bits())
	} else {
		s.Saddr, s.PrefixlenS = address(p.prefix.Addr()), uint8(p.prefix.Bits())
	}
	return s
}

func attr(kind int, v uint32) *nl.RtAttr { return nl.NewRtAttr(kind, nl.Uint32Attr(v)) }

func forever() nl.XfrmLifetimeCfg {
	return nl.XfrmLifetimeCfg{SoftByteLimit: nl.XFRM_INF, HardByteLimit: nl.XFRM_INF, SoftPacketLimit: nl.XFRM_INF, HardPacketLimit: nl.XFRM_INF}
}

func family(a netip.Addr) uint16 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// address is an xfrm_address_t: network byte order, IPv4 in the first four bytes.
func address(a netip.Addr) (x nl.XfrmAddress) {
	copy(x[:], a.AsSlice())
	return x
}

// addrOf goes by the family: the library guesses it from the bytes, and takes 2001:db8:: with zeros behind for IPv4.
func addrOf(x nl.XfrmAddress, family uint16) netip.Addr {
	if family == unix.AF_INET {
		return netip.AddrFrom4([4]byte(x[:4]))
	}
	return netip.AddrFrom16([16]byte(x))
}
