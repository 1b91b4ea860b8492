package ipsec

import (
	"encoding/binary"
	"fmt"
	"iter"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// states returns the states of ours: those whose if_id is in our range. Acquire states, which have no SPI, are the kernel's.
func (x *xfrm) states() ([]sa, error) {
	list, err := x.dump(nl.XFRM_MSG_GETSA, nl.XFRM_MSG_NEWSA)
	if err != nil {
		return nil, fmt.Errorf("list IPsec states: %w", err)
	}
	var all []sa
	for _, m := range list {
		s, err := parseState(m)
		if err != nil {
			return nil, fmt.Errorf("list IPsec states: %w", err)
		}
		if isOurs(s.ifID) && s.spi != 0 {
			all = append(all, s)
		}
	}
	return all, nil
}

func parseState(m []byte) (sa, error) {
	if len(m) < nl.SizeofXfrmUsersaInfo {
		return sa{}, fmt.Errorf("a message of %d bytes", len(m))
	}
	i := nl.DeserializeXfrmUsersaInfo(m)
	s := sa{
		src: addrOf(i.Saddr, i.Family), dst: addrOf(i.Id.Daddr, i.Family), spi: nl.Swap32(i.Id.Spi), reqid: i.Reqid,
		packets: i.Curlft.Packets, bytes: i.Curlft.Bytes, failed: i.Stats.IntegrityFailed, replayed: i.Stats.Replay,
		added: int64(i.Curlft.AddTime), used: int64(i.Curlft.UseTime),
	}
	for kind, value := range attributes(m[nl.SizeofXfrmUsersaInfo:]) {
		switch kind {
		case nl.XFRMA_IF_ID:
			s.ifID = binary.NativeEndian.Uint32(value)
		case nl.XFRMA_SET_MARK:
			s.mark = binary.NativeEndian.Uint32(value)
		case nl.XFRMA_LASTUSED:
			s.used = int64(binary.NativeEndian.Uint64(value))
		case nl.XFRMA_ENCAP:
			e := nl.DeserializeXfrmEncapTmpl(value)
			s.sport, s.dport = nl.Swap16(e.EncapSport), nl.Swap16(e.EncapDport)
		case nl.XFRMA_REPLAY_ESN_VAL:
			// bmp_len, oseq, seq, oseq_hi, seq_hi, replay_window: one of the two sequences stays 0
			word := func(n int) uint64 { return uint64(binary.NativeEndian.Uint32(value[4*n:])) }
			s.seq = max(word(3)<<32|word(1), word(4)<<32|word(2))
			s.window = int(word(5))
		}
	}
	return s, nil
}

// policies returns the policies of ours.
func (x *xfrm) policies() ([]policy, error) {
	list, err := x.dump(nl.XFRM_MSG_GETPOLICY, nl.XFRM_MSG_NEWPOLICY)
	if err != nil {
		return nil, fmt.Errorf("list IPsec policies: %w", err)
	}
	var all []policy
	for _, m := range list {
		p, err := parsePolicy(m)
		if err != nil {
			return nil, fmt.Errorf("list IPsec policies: %w", err)
		}
		if isOurs(p.ifID) {
			all = append(all, p)
		}
	}
	return all, nil
}

func parsePolicy(m []byte) (policy, error) {
	if len(m) < nl.SizeofXfrmUserpolicyInfo {
		return policy{}, fmt.Errorf("a message of %d bytes", len(m))
	}
	i := nl.DeserializeXfrmUserpolicyInfo(m)
	p := policy{way: way(i.Dir)}
	if p.way == out {
		p.prefix = netip.PrefixFrom(addrOf(i.Sel.Daddr, i.Sel.Family), int(i.Sel.PrefixlenD))
	} else {
		p.prefix = netip.PrefixFrom(addrOf(i.Sel.Saddr, i.Sel.Family), int(i.Sel.PrefixlenS))
	}
	for kind, value := range attributes(m[nl.SizeofXfrmUserpolicyInfo:]) {
		switch kind {
		case nl.XFRMA_IF_ID:
			p.ifID = binary.NativeEndian.Uint32(value)
		case nl.XFRMA_TMPL:
			t := nl.DeserializeXfrmUserTmpl(value)
			p.reqid = t.Reqid
			if p.way == out {
				p.local, p.remote = addrOf(t.Saddr, t.Family), addrOf(t.XfrmId.Daddr, t.Family)
			} else {
				p.local = addrOf(t.XfrmId.Daddr, t.Family)
			}
		}
	}
	return p, nil
}

// attributes walks over netlink attributes: length (2 bytes, with this header), type (2), value, each aligned to 4. One that
// is cut off ends the walk. There may be tens of thousands, and nothing is allocated.
func attributes(b []byte) iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			size := int(binary.NativeEndian.Uint16(b))
			if size < unix.SizeofRtAttr || size > len(b) {
				return
			}
			if !yield(int(binary.NativeEndian.Uint16(b[2:])), b[unix.SizeofRtAttr:size]) {
				return
			}
			b = b[min((size+3)&^3, len(b)):]
		}
	}
}
