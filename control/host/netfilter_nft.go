package host

import (
	"encoding/binary"
	"errors"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"sluice/netdump"
)

// readNFTables reads the chains and rules of every family in this namespace, iptables-nft's included.
func readNFTables() (ruleset, error) {
	state, err := moduleState("nf_tables", "CONFIG_NF_TABLES")
	if err == nil && (state == moduleOnDisk || state == moduleAbsent) {
		return nil, errNoNetfilter // to ask would load it
	}
	r := ruleset{}
	for message, take := range map[int]func(family uint8, a nftAttrs){unix.NFT_MSG_GETCHAIN: r.nftChain, unix.NFT_MSG_GETRULE: r.nftRule} {
		req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|message, unix.NLM_F_DUMP)
		req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.NFPROTO_UNSPEC, Version: nl.NFNETLINK_V0})
		replies, err := netdump.List(func() ([][]byte, error) { return req.Execute(unix.NETLINK_NETFILTER, 0) })
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) {
			return nil, errNoNetfilter
		}
		if err != nil {
			return nil, err
		}
		for _, m := range replies {
			if len(m) >= nl.SizeofNfgenmsg {
				take(m[0], parseNFT(m[nl.SizeofNfgenmsg:]))
			}
		}
	}
	return r, nil
}

// nftAttrs are netlink attributes by type. Numbers in them are in network byte order.
type nftAttrs map[uint16][]byte

func parseNFT(b []byte) nftAttrs {
	out := nftAttrs{}
	for _, a := range listNFT(b) {
		out[a.Attr.Type&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER)] = a.Value
	}
	return out
}

func listNFT(b []byte) []syscall.NetlinkRouteAttr {
	list, err := nl.ParseRouteAttr(b)
	if err != nil {
		return nil
	}
	return list
}

func (a nftAttrs) text(kind uint16) string { return strings.TrimRight(string(a[kind]), "\x00") }

func (a nftAttrs) number(kind uint16) uint32 {
	if len(a[kind]) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(a[kind])
}

// nftName names a chain as `nft list` does. The bridge's own families have hooks of their own, which nobody passes by.
func nftName(family uint8, table, chain string) string {
	names := map[uint8]string{unix.NFPROTO_INET: "inet", unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_NETDEV: "netdev",
		unix.NFPROTO_ARP: "arp", unix.NFPROTO_BRIDGE: "bridge"}
	return names[family] + " " + table + " " + chain
}

func (r ruleset) nftChain(family uint8, a nftAttrs) {
	c := r.at(nftName(family, a.text(unix.NFTA_CHAIN_TABLE), a.text(unix.NFTA_CHAIN_NAME)))
	hook, ok := a[unix.NFTA_CHAIN_HOOK]
	if !ok {
		return
	}
	number := parseNFT(hook).number(unix.NFTA_HOOK_HOOKNUM)
	hooks := []string{"prerouting", "input", "forward", "output", "postrouting", "ingress"}
	switch family {
	case unix.NFPROTO_NETDEV:
		hooks = []string{"ingress", "egress"}
	case unix.NFPROTO_ARP, unix.NFPROTO_BRIDGE:
		hooks = nil
	}
	if int(number) < len(hooks) {
		c.hook = hooks[number]
	}
	c.kind = a.text(unix.NFTA_CHAIN_TYPE)
	_, has := a[unix.NFTA_CHAIN_POLICY]
	c.drops = has && a.number(unix.NFTA_CHAIN_POLICY) == 0 // NF_DROP
	// iptables-nft keeps the names of its tables, which say more than the type.
	if table := a.text(unix.NFTA_CHAIN_TABLE); c.kind == "filter" && (table == "mangle" || table == "raw" || table == "security") {
		c.kind = table
	}
}

func (r ruleset) nftRule(family uint8, a nftAttrs) {
	table := a.text(unix.NFTA_RULE_TABLE)
	c := r.at(nftName(family, table, a.text(unix.NFTA_RULE_CHAIN)))
	c.rules++
	asks := false
	for _, e := range listNFT(a[unix.NFTA_RULE_EXPRESSIONS]) {
		expr := parseNFT(e.Value)
		data := parseNFT(expr[unix.NFTA_EXPR_DATA])
		switch expr.text(unix.NFTA_EXPR_NAME) {
		case "ct":
			asks = true
		case "match": // of iptables-nft
			name := data.text(1) // NFTA_MATCH_NAME
			asks = asks || name == "conntrack" || name == "state"
		case "immediate":
			verdict := parseNFT(parseNFT(data[unix.NFTA_IMMEDIATE_DATA])[unix.NFTA_DATA_VERDICT])
			if to := verdict.text(unix.NFTA_VERDICT_CHAIN); to != "" {
				c.jumps = append(c.jumps, nftName(family, table, to))
			}
		}
	}
	if asks {
		c.conntrack++
	}
}
