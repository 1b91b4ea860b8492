package daemon

import (
	"fmt"
	"net"
	"sync"
	"time"

	"sluice/control/api"
	"sluice/control/compile"
	"sluice/control/config"
	"sluice/tc"
	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/packet"
)

// namesHold is how long names are taken for what they were.
const namesHold = time.Second

// names are those of what the programs know by number: interfaces by index, rules by stable id.
type names struct {
	d *Daemon

	mu         sync.Mutex
	since      time.Time // both are looked up anew when they are old
	interfaces map[int]string
	rules      map[uint32]ruleName
	workloads  *tc.FlowNames
}

// ruleName is a rule by name, as policy/rule, and where it stands, if anywhere.
type ruleName struct {
	name string
	pos  config.Pos
}

func (d *Daemon) newNames() *names { return &names{d: d} }

// fresh is called with mu held.
func (n *names) fresh() {
	if time.Since(n.since) > namesHold {
		n.since, n.interfaces, n.rules, n.workloads = time.Now(), map[int]string{}, nil, nil
	}
}

var hookNames = [abi.HookMax + 1]string{"xdp", "tcx-ingress", "tcx-egress", "unknown"}

func hookName(h abi.Hook) string { return hookNames[min(h, abi.HookMax)] }

func (n *names) iface(index int) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fresh()
	if name, ok := n.interfaces[index]; ok {
		return name
	}
	name := fmt.Sprintf("interface %d", index)
	if device, err := net.InterfaceByIndex(index); err == nil {
		name = device.Name
	}
	n.interfaces[index] = name
	return name
}

// defaultRule stands for a policy's default where a rule's name would; the file has no word for it that a rule could have.
const defaultRule = "default"

// rule is empty for an id that no rule of the live revision has, such as 0.
func (n *names) rule(id uint32) ruleName {
	if id == 0 {
		return ruleName{}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fresh()
	if n.rules == nil {
		n.rules = map[uint32]ruleName{}
		places := compile.RulePlaces(n.d.liveConfig())
		for name, r := range n.d.rulesByName() {
			n.rules[r.ID] = ruleName{name, places[name]}
		}
		for _, p := range n.d.policies() {
			if p.DefaultID != 0 {
				n.rules[p.DefaultID] = ruleName{name: p.Name + "/" + defaultRule}
			}
		}
	}
	return n.rules[id]
}

func (n *names) workload(f tc.Flow) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fresh()
	if n.workloads == nil {
		n.workloads = new(tc.NewFlowNames(n.d.flowWorkloads()))
	}
	return n.workloads.Of(f)
}

// packet says in words what a hook saw.
func (n *names) packet(s xdp.Sample) api.Packet {
	p := api.Packet{
		Hook: hookName(s.Hook), Interface: n.iface(s.Ifindex), Rule: n.rule(s.Rule).name,
		Source: s.Src.Addr(), Destination: s.Dst.Addr(), Fragment: s.Fragment, VLAN: s.VLAN, Length: s.Len,
	}
	if byFilter(s.Reason) || sampledByFilter(s) {
		p.Rule = ""
	}
	if s.Src.IsValid() {
		p.Protocol = packet.ProtocolName(s.Protocol)
	}
	if s.Ports {
		source, destination := s.Src.Port(), s.Dst.Port()
		p.SourcePort, p.DestinationPort = &source, &destination
	}
	switch s.Protocol {
	case packet.TCP:
		if s.Ports {
			p.TCPFlags = packet.FlagText(s.TCPFlags)
		}
	case packet.ICMP, packet.ICMPv6:
		if !s.Fragment {
			p.ICMPType = &s.ICMPType
		}
	}
	return p
}
