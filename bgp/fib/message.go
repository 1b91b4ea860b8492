package fib

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"sluice/netdump"
)

// netlink v1.3.1 knows neither nexthop objects nor routes by them, so their messages are written here (Linux 5.3, include/uapi/linux/nexthop.h).
const (
	rtaNexthop = 30 // RTA_NH_ID

	sizeofNexthop = 8 // struct nhmsg: family, scope, protocol, reserved, flags
)

// firstObject is the least id that we give to an object: ids are one space for all who make some, and others count from 1.
const firstObject uint32 = Protocol << 24

func (k kernel) request(kind, flags int) *nl.NetlinkRequest {
	return &nl.NetlinkRequest{
		NlMsghdr: unix.NlMsghdr{Len: unix.SizeofNlMsghdr, Type: uint16(kind), Flags: uint16(unix.NLM_F_REQUEST | flags)},
		Sockets:  map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: k.socket},
	}
}

func (k kernel) do(kind, flags int, data ...nl.NetlinkRequestData) error {
	r := k.request(kind, flags|unix.NLM_F_ACK)
	for _, d := range data {
		r.AddData(d)
	}
	_, err := r.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// nhmsg is struct nhmsg.
type nhmsg struct {
	family, protocol uint8
	flags            uint32
}

func (m nhmsg) Len() int { return sizeofNexthop }

func (m nhmsg) Serialize() []byte {
	b := []byte{m.family, 0, m.protocol, 0}
	return binary.NativeEndian.AppendUint32(b, m.flags)
}

func u32(kind int, v uint32) *nl.RtAttr { return nl.NewRtAttr(kind, nl.Uint32Attr(v)) }

// addMember makes the object of a hop. EEXIST: the id is taken.
func (k kernel) addMember(id uint32, h hop) error {
	m := nhmsg{family: unix.AF_INET, protocol: Protocol}
	if h.addr.Is6() {
		m.family = unix.AF_INET6
	}
	if h.onLink {
		m.flags = unix.RTNH_F_ONLINK
	}
	return k.do(unix.RTM_NEWNEXTHOP, unix.NLM_F_CREATE|unix.NLM_F_EXCL, m,
		u32(unix.NHA_ID, id), u32(unix.NHA_OIF, uint32(h.link)), nl.NewRtAttr(unix.NHA_GATEWAY, h.addr.AsSlice()))
}

// setGroup makes a group (unix.NLM_F_CREATE|NLM_F_EXCL), or exchanges its members in one step (unix.NLM_F_REPLACE).
func (k kernel) setGroup(flags int, id uint32, members []uint32) error {
	var list []byte
	for _, m := range members { // struct nexthop_grp: id, weight less 1, reserved
		list = append(binary.NativeEndian.AppendUint32(list, m), 0, 0, 0, 0)
	}
	return k.do(unix.RTM_NEWNEXTHOP, flags, nhmsg{family: unix.AF_UNSPEC, protocol: Protocol},
		u32(unix.NHA_ID, id), nl.NewRtAttr(unix.NHA_GROUP, list))
}

// delete removes an object; the routes by a group go with it. One that is gone already is as good.
func (k kernel) delete(id uint32) error {
	err := k.do(unix.RTM_DELNEXTHOP, 0, nhmsg{}, u32(unix.NHA_ID, id))
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// object is a nexthop object as the kernel tells it.
type object struct {
	id      uint32
	hop     hop
	members []uint32 // of a group
}

// objects lists those that are ours: of our protocol, and with an id that we may have given.
func (k kernel) objects() ([]object, error) {
	messages, err := netdump.List(func() ([][]byte, error) {
		r := k.request(unix.RTM_GETNEXTHOP, unix.NLM_F_DUMP)
		r.AddData(nhmsg{})
		return r.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEXTHOP)
	})
	if err != nil {
		return nil, fmt.Errorf("list the kernel's nexthop objects: %w", err)
	}
	var out []object
	for _, m := range messages {
		if len(m) < sizeofNexthop || m[2] != Protocol {
			continue
		}
		attrs, err := nl.ParseRouteAttr(m[sizeofNexthop:])
		if err != nil {
			return nil, err
		}
		var o object
		o.hop.onLink = binary.NativeEndian.Uint32(m[4:])&unix.RTNH_F_ONLINK != 0
		for _, a := range attrs {
			switch {
			case a.Attr.Type == unix.NHA_ID && len(a.Value) == 4:
				o.id = binary.NativeEndian.Uint32(a.Value)
			case a.Attr.Type == unix.NHA_OIF && len(a.Value) == 4:
				o.hop.link = int(binary.NativeEndian.Uint32(a.Value))
			case a.Attr.Type == unix.NHA_GATEWAY:
				addr, _ := netip.AddrFromSlice(a.Value)
				o.hop.addr = addr
			case a.Attr.Type == unix.NHA_GROUP:
				for list := a.Value; len(list) >= 8; list = list[8:] {
					o.members = append(o.members, binary.NativeEndian.Uint32(list))
				}
			}
		}
		if o.id >= firstObject {
			o.hop.addr = k.withZone(o.hop.addr, o.hop.link)
			out = append(out, o)
		}
	}
	return out, nil
}

// add refuses to stand in for a route that is not ours: the kernel's identity of a route is (table, prefix, metric),
// whatever its protocol, and a replace would take over a static route silently.
func (k kernel) add(r Route, group uint32) error {
	err := k.route(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, r, unix.RT_SCOPE_UNIVERSE, group)
	if errors.Is(err, unix.EEXIST) {
		return errConflict
	}
	return err
}

func (k kernel) replace(r Route, group uint32) error {
	return k.route(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, r, unix.RT_SCOPE_UNIVERSE, group)
}

// remove matches on the protocol too. ESRCH, the route went with its group, is success.
func (k kernel) remove(r Route) error {
	err := k.route(unix.RTM_DELROUTE, 0, r, unix.RT_SCOPE_NOWHERE, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// routeBy reads a route of ours, and the object of ours that it goes by, 0: none. A table of 0: the route is not ours.
func routeBy(m []byte) (prefix netip.Prefix, there place, group uint32) {
	if len(m) < unix.SizeofRtMsg {
		return prefix, there, 0
	}
	r := nl.DeserializeRtMsg(m)
	if r.Protocol != Protocol || r.Flags&unix.RTM_F_CLONED != 0 {
		return prefix, there, 0
	}
	addr := netip.IPv4Unspecified()
	if r.Family == unix.AF_INET6 {
		addr = netip.IPv6Unspecified()
	}
	attributes(m[unix.SizeofRtMsg:], func(kind uint16, value []byte) {
		switch {
		case kind == unix.RTA_DST:
			addr, _ = netip.AddrFromSlice(value)
		case len(value) != 4:
		case kind == unix.RTA_TABLE:
			there.table = int(binary.NativeEndian.Uint32(value))
		case kind == unix.RTA_PRIORITY:
			there.metric = int(binary.NativeEndian.Uint32(value))
		case kind == rtaNexthop:
			group = binary.NativeEndian.Uint32(value)
		}
	})
	if group < firstObject {
		group = 0
	}
	return netip.PrefixFrom(addr, int(r.Dst_len)), there, group
}

// attributes reads those of a message without copying them, as there may be a million.
func attributes(b []byte, f func(kind uint16, value []byte)) {
	for len(b) >= unix.SizeofRtAttr {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofRtAttr || length > len(b) {
			return
		}
		f(binary.NativeEndian.Uint16(b[2:]), b[unix.SizeofRtAttr:length])
		b = b[min(len(b), (length+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1)):]
	}
}
