package lane

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"structs"

	"github.com/cilium/ebpf"
)

// Flow is what tells one frame from another: IPv4, TCP or UDP.
type Flow struct {
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16
	Protocol         uint8
}

// Flows are a table of flows in the kernel, which generators walk in order, again and again.
type Flows struct {
	table *ebpf.Map
	n     int
}

// record is struct flow of frames.c.
type record struct {
	_                       structs.HostLayout
	Src, Dst                [4]byte
	SrcPort, DstPort, Check [2]byte
	Protocol, _             uint8
}

// NewFlows writes a table of n entries, a power of two; the list is repeated to fill it.
func (o *Objects) NewFlows(list []Flow, n int) (*Flows, error) {
	if n&(n-1) != 0 || len(list) == 0 {
		return nil, fmt.Errorf("%d entries of %d flows: not a power of two of some", n, len(list))
	}
	spec := o.spec.Maps["flows"].Copy()
	spec.MaxEntries = uint32(n)
	table, err := ebpf.NewMap(spec)
	if err != nil {
		return nil, err
	}
	index, records := make([]uint32, n), make([]record, n)
	for i := range records {
		index[i], records[i] = uint32(i), list[i%len(list)].record()
	}
	for first := 0; first < n; first += 1 << 16 {
		last := min(n, first+1<<16)
		if _, err := table.BatchUpdate(slices.Clip(index[first:last]), slices.Clip(records[first:last]), nil); err != nil {
			table.Close()
			return nil, fmt.Errorf("write flows: %w", err)
		}
	}
	return &Flows{table, n}, nil
}

// Close closes the descriptor; programs keep the table.
func (f *Flows) Close() error { return f.table.Close() }

func (f Flow) record() record {
	r := record{Src: f.Src.As4(), Dst: f.Dst.As4(), Protocol: f.Protocol}
	binary.BigEndian.PutUint16(r.SrcPort[:], f.SrcPort)
	binary.BigEndian.PutUint16(r.DstPort[:], f.DstPort)
	binary.BigEndian.PutUint16(r.Check[:], f.checksum())
	return r
}

// checksum is that of the IP header that write_frame makes (RFC 1071).
func (f Flow) checksum() uint16 {
	length := uint32(40)
	if f.Protocol == 17 {
		length = 50
	}
	sum := 0x4500 + length + 64<<8 + uint32(f.Protocol)
	for _, a := range [][4]byte{f.Src.As4(), f.Dst.As4()} {
		sum += uint32(binary.BigEndian.Uint16(a[:])) + uint32(binary.BigEndian.Uint16(a[2:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
