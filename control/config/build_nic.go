package config

import "time"

// nic judges what a file sets of the hardware below an interface; that of a bond is for each of its members.
func (b *builder) nic(r *rawInterface) *NIC {
	raw := &r.NIC
	if !raw.written() {
		return nil
	}
	switch {
	case r.Parent.written() || r.VLAN.written():
		b.add(raw.at, bad("a VLAN child has no NIC of its own").or("write nic at its parent"))
	case r.Name.ok && r.Name.v == "lo":
		b.add(raw.at, bad("lo has no NIC").or("remove it"))
	}
	out := &NIC{
		Queues: amountOf(raw.Queues), RXRing: amountOf(raw.Rings.RX), TXRing: amountOf(raw.Rings.TX),
		AdaptiveRX: switched("", raw.Coalesce.AdaptiveRX), AdaptiveTX: switched("", raw.Coalesce.AdaptiveTX),
		RXDelay: delayed(raw.Coalesce.RX), TXDelay: delayed(raw.Coalesce.TX), FlowControl: switched("", raw.FlowControl),
	}
	for _, o := range []struct {
		name string
		raw  val[truth]
	}{{OffloadLRO, raw.Offloads.LRO}, {OffloadGRO, raw.Offloads.GRO}, {OffloadGROHW, raw.Offloads.GROHW}, {OffloadGSO, raw.Offloads.GSO}, {OffloadTSO, raw.Offloads.TSO}} {
		if s := switched(o.name, o.raw); s != nil {
			out.Offloads = append(out.Offloads, *s)
		}
	}
	out.IRQs = b.irqAffinity(&raw.IRQAffinity)
	b.joined(r)
	return out
}

// joined reports offloads that join packets before XDP sees them: drivers refuse native XDP beside them.
func (b *builder) joined(r *rawInterface) {
	mode := r.XDP.Mode.or(defaultXDP(r))
	if r.Role.v != RoleUplink || mode != XDPAuto && mode != XDPNative {
		return
	}
	for _, o := range []struct {
		name string
		raw  val[truth]
	}{{OffloadLRO, r.NIC.Offloads.LRO}, {OffloadGROHW, r.NIC.Offloads.GROHW}} {
		if o.raw.ok && bool(o.raw.v) {
			b.add(o.raw.at, bad("native XDP needs %s off", o.name).or("write false, or xdp: {mode: generic} or none"))
		}
	}
}

func amountOf(v val[amount]) Amount {
	if !v.written() {
		return Amount{}
	}
	return Amount{N: v.v.n, Max: v.v.max, Pos: v.pos}
}

func switched(name string, v val[truth]) *Switch {
	if !v.written() {
		return nil
	}
	return &Switch{Name: name, On: bool(v.v), Pos: v.pos}
}

func delayed(v val[delay]) *Delay {
	if !v.written() {
		return nil
	}
	return &Delay{For: time.Duration(v.v), Pos: v.pos}
}

func (b *builder) irqAffinity(raw *irqAffinity) *IRQAffinity {
	if !raw.written() {
		return nil
	}
	if raw.cpus.empty() {
		b.add(raw.cpus.at, bad("the list is empty").or("write auto, or CPUs such as [0-3, 8]"))
	}
	out, by := &IRQAffinity{Pos: raw.pos}, map[uint16]at{}
	for _, c := range raw.cpus.items {
		if !c.ok {
			continue
		}
		for cpu := c.v.First; cpu <= c.v.Last; cpu++ {
			if first, twice := by[cpu]; twice {
				b.add(c.at, bad("CPU %d is there twice", cpu).or("the first stands at %s", place(first)))
				break
			}
			by[cpu] = c.at
		}
		out.CPUs = append(out.CPUs, c.v.Range)
	}
	return out
}
