package host

import (
	"cmp"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// pick returns some of the choices, in their order, at most one of each identity.
func pick[T any, K comparable](r *rand.Rand, choices []T, key func(T) K) []T {
	seen := make(map[K]bool)
	var out []T
	for _, i := range r.Perm(len(choices)) {
		if c := choices[i]; r.IntN(2) == 0 && !seen[key(c)] {
			seen[key(c)] = true
			out = append(out, c)
		}
	}
	return out
}

func lookup(priority int, ipv6 bool, in string, table int) Rule {
	return Rule{Priority: priority, IPv6: ipv6, InLink: in, Table: table}
}

func generated(r *rand.Rand) State {
	links := []Link{
		{"eth0", true, 1400, 0}, {"eth0", false, 1500, 7}, {"eth0", true, 0, 8}, {"eth1", true, 9000, 7}, {"lo", true, 0, 0},
	}
	a, b := pfx("198.18.0.2/30"), pfx("2001:db8::2/64")
	addresses := []Address{
		{Link: "eth0", Prefix: a}, {Link: "eth0", Prefix: a, Keep: true}, {Link: "eth1", Prefix: a},
		{Link: "eth0", Prefix: b}, {Link: "eth0", Prefix: b, Keep: true}, {Link: "lo", Prefix: pfx("203.0.113.1/32")},
	}
	x, y := pfx("192.0.2.0/24"), pfx("2001:db8:1::/48")
	routes := []Route{
		{Prefix: x, Type: Unicast, Via: hops("198.18.0.1"), Link: "eth0", Table: 254},
		{Prefix: x, Type: Unicast, Via: hops("198.18.0.1", "198.18.0.9"), Table: 254},
		{Prefix: x, Type: Blackhole, Table: 254}, {Prefix: x, Type: Unicast, Link: "eth1", Table: 254, Keep: true},
		{Prefix: x, Type: Prohibit, Metric: 10, Table: 254}, {Prefix: x, Type: Prohibit, Table: 100},
		{Prefix: y, Type: Unicast, Via: hops("2001:db8::1"), Link: "eth0", Metric: 1024, Table: 254},
		{Prefix: y, Type: Unicast, Link: "eth1", Metric: 1024, Table: 254},
	}
	rules := []Rule{
		lookup(900, false, "eth0", 100), lookup(900, true, "eth0", 100), lookup(901, false, "eth0", 100), lookup(900, false, "eth1", 100),
		{Priority: 900, InLink: "eth0", Table: 100, SuppressGroup: 7}, {Priority: 901, InLink: "eth0", Prohibit: true},
		{Priority: 902, Mark: 1 << 24, Mask: 1 << 24, Table: 254}, {Priority: 902, Table: 254, Shortest: 1}, {Priority: 902, OutLink: "eth0", Table: 188},
		{Priority: 902, To: pfx("198.51.100.7/32"), Table: 254}, {Priority: 902, IPv6: true, To: pfx("2001:db8::7/128"), Table: 254},
	}
	sysctls := []Sysctl{
		{"net.ipv4.ip_forward", "1"}, {"net.ipv4.ip_forward", "0"}, {"net.ipv6.conf.all.forwarding", "1"},
		{"net.ipv6.conf.default.accept_ra", "0"}, {"net.ipv6.conf.eth0.accept_ra", "2"}, {"net.ipv6.conf.all.accept_ra", "0"},
	}
	inner := []InnerSysctl{
		{"web-1", "net.ipv4.tcp_syncookies", "2"}, {"web-1", "net.ipv4.tcp_syncookies", "1"}, {"web-1", "net.ipv4.tcp_timestamps", "2"},
		{"web-2", "net.ipv4.tcp_syncookies", "2"},
	}
	devices := []Device{
		{Name: "eth0", Parent: "lo", VLAN: 7}, {Name: "eth0", Parent: "lo", VLAN: 8}, {Name: "eth0", Parent: "lo", VLAN: 7, Gone: true},
		{Name: "eth1", Members: []string{"a", "b"}, LACP: "fast"}, {Name: "eth1", Members: []string{"a"}, LACP: "fast", Keep: true},
		{Name: "eth1", Members: []string{"a"}, LACP: "off"}, {Name: "eth2", Parent: "eth1", VLAN: 7},
	}
	tunings := []Tuning{
		{"eth0", Rings, Values{"rx": "512"}}, {"eth0", Rings, Values{"rx": "512", "tx": "512"}}, {"eth0", IRQAffinity, Values{"": "auto"}},
		{"eth0", IRQAffinity, Values{"": "0-1"}}, {"eth1", Queues, Values{"": "4"}}, {"", CPUGovernor, Values{"": "performance"}},
	}
	return State{
		Tunings:   pick(r, tunings, Tuning.id),
		Devices:   pick(r, devices, func(d Device) string { return d.Name }),
		Tags:      pick(r, []Tags{{"eth0", true}, {"eth1", true}}, func(t Tags) string { return t.Link }),
		Qdiscs:    pick(r, []Qdisc{{"eth0", true}, {"eth1", true}}, func(q Qdisc) string { return q.Link }),
		Inner:     pick(r, inner, InnerSysctl.id),
		Links:     pick(r, links, func(l Link) string { return l.Name }),
		Addresses: pick(r, addresses, addressKey),
		Routes:    pick(r, routes, Route.key),
		Rules:     pick(r, rules, func(r Rule) Rule { return r }),
		Sysctls:   pick(r, sysctls, func(s Sysctl) string { return s.Key }),
	}
}

// model is the pure machine: what each step does to a State.
func model(t *testing.T, s State, op Op) State {
	t.Helper()
	link := func(name string, change func(*Link)) {
		i := slices.IndexFunc(s.Links, func(l Link) bool { return l.Name == name })
		if i < 0 {
			s.Links = append(slices.Clone(s.Links), Link{Name: name})
			i = len(s.Links) - 1
		}
		s.Links = slices.Clone(s.Links)
		change(&s.Links[i])
		s.Links = filter(s.Links, func(l Link) bool { return l.Up || l.MTU != 0 || l.Group != 0 })
	}
	switch o := op.(type) {
	case setUp:
		link(o.link, func(l *Link) { l.Up = true })
	case dropUp:
		link(o.link, func(l *Link) { l.Up = false })
	case setMTU:
		link(o.link, func(l *Link) { l.MTU = o.mtu })
	case dropMTU:
		link(o.link, func(l *Link) { l.MTU = 0 })
	case setGroup:
		link(o.link, func(l *Link) { l.Group = o.group })
	case dropGroup:
		link(o.link, func(l *Link) { l.Group = 0 })
	case setAddress:
		s.Addresses = append(filter(s.Addresses, func(a Address) bool { return addressKey(a) != addressKey(o.Address) }), o.Address)
	case dropAddress:
		s.Addresses = filter(s.Addresses, func(a Address) bool { return a != o.Address })
	case setRoute:
		s.Routes = append(filter(s.Routes, func(r Route) bool { return r.key() != o.key() }), o.Route)
	case dropRoute:
		s.Routes = filter(s.Routes, func(r Route) bool { return r.key() != o.key() })
	case setRule:
		s.Rules = append(slices.Clone(s.Rules), o.Rule)
	case dropRule:
		s.Rules = filter(s.Rules, func(r Rule) bool { return r != o.Rule })
	case setSysctl:
		s.Sysctls = append(filter(s.Sysctls, func(v Sysctl) bool { return v.Key != o.Key }), o.Sysctl)
	case dropSysctl:
		s.Sysctls = filter(s.Sysctls, func(v Sysctl) bool { return v.Key != o.Key })
	case setInner:
		s.Inner = append(filter(s.Inner, func(v InnerSysctl) bool { return v.id() != o.id() }), o.InnerSysctl)
	case dropInner:
		s.Inner = filter(s.Inner, func(v InnerSysctl) bool { return v.id() != o.id() })
	case setDevice:
		s.Devices = append(filter(s.Devices, func(d Device) bool { return d.Name != o.Name }), o.Device)
	case dropDevice:
		s.Devices = filter(s.Devices, func(d Device) bool { return d.Name != o.Name })
	case setTags:
		s.Tags = append(filter(s.Tags, func(v Tags) bool { return v.Link != o.link }), Tags{o.link, true})
	case dropTags:
		s.Tags = filter(s.Tags, func(v Tags) bool { return v.Link != o.link })
	case setQdisc:
		s.Qdiscs = append(filter(s.Qdiscs, func(v Qdisc) bool { return v.Link != o.link }), Qdisc{o.link, true})
	case dropQdisc:
		s.Qdiscs = filter(s.Qdiscs, func(v Qdisc) bool { return v.Link != o.link })
	case setTuning:
		s.Tunings = append(filter(s.Tunings, func(v Tuning) bool { return v.id() != o.id() }), o.Tuning)
	case dropTuning:
		s.Tunings = filter(s.Tunings, func(v Tuning) bool { return v.id() != o.tuningID })
	default:
		t.Fatalf("a step that the model does not know: %T", op)
	}
	return s
}

func sorted(s State) State {
	s.Links, s.Addresses, s.Routes = slices.Clone(s.Links), slices.Clone(s.Addresses), slices.Clone(s.Routes)
	s.Rules, s.Sysctls = slices.Clone(s.Rules), slices.Clone(s.Sysctls)
	slices.SortFunc(s.Links, func(a, b Link) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(s.Addresses, func(a, b Address) int { return cmp.Compare(a.String(), b.String()) })
	slices.SortFunc(s.Routes, func(a, b Route) int { return cmp.Compare(a.String(), b.String()) })
	slices.SortFunc(s.Rules, func(a, b Rule) int { return cmp.Compare(a.String(), b.String()) })
	slices.SortFunc(s.Sysctls, func(a, b Sysctl) int { return cmp.Compare(a.Key, b.Key) })
	s.Inner = slices.Clone(s.Inner)
	slices.SortFunc(s.Inner, compareInner)
	s.Devices = slices.Clone(s.Devices)
	slices.SortFunc(s.Devices, func(a, b Device) int { return cmp.Compare(a.Name, b.Name) })
	s.Tags = slices.Clone(s.Tags)
	slices.SortFunc(s.Tags, func(a, b Tags) int { return cmp.Compare(a.Link, b.Link) })
	s.Tunings = slices.Clone(s.Tunings)
	slices.SortFunc(s.Tunings, compareTunings)
	s.Qdiscs = slices.Clone(s.Qdiscs)
	slices.SortFunc(s.Qdiscs, func(a, b Qdisc) int { return cmp.Compare(a.Link, b.Link) })
	return s
}

func TestReplayingDiffOfAAndBOnAGivesB(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		a, b := generated(r), generated(r)
		if ops := Diff(a, a); len(ops) > 0 {
			t.Fatalf("Diff(x, x) is %v for %+v", ops, a)
		}
		ops := Diff(a, b)
		got := a
		teardown := false
		for _, op := range ops {
			if teardown && !op.Teardown() {
				t.Fatalf("%q comes after a step of teardown in %v", op, ops)
			}
			teardown = op.Teardown()
			got = model(t, got, op)
		}
		if d := gocmp.Diff(sorted(b), sorted(got), cmpopts.EquateEmpty(), netipEqual); d != "" {
			t.Fatalf("replayed %v\n(- wanted, + got):\n%s", ops, d)
		}
	}
}

func TestOrderOfSteps(t *testing.T) {
	all := State{
		Devices:   []Device{{Name: "a.7", Parent: "bond0", VLAN: 7}, {Name: "bond0", Members: []string{"m0", "m1"}, LACP: "slow"}},
		Links:     []Link{{"a.7", true, 1400, 0}, {"eth0", true, 1400, 7}},
		Addresses: []Address{{Link: "eth0", Prefix: pfx("198.18.0.2/30")}},
		Routes: []Route{
			{Prefix: pfx("0.0.0.0/0"), Type: Unicast, Via: hops("198.51.100.1"), Table: 254},
			{Prefix: pfx("198.51.100.0/24"), Type: Unicast, Link: "eth0", Table: 254},
		},
		Rules: []Rule{lookup(900, false, "eth0", 100)},
		Sysctls: []Sysctl{
			{"net.ipv4.conf.eth0.rp_filter", "2"}, {"net.ipv4.conf.default.rp_filter", "1"},
			{"net.ipv4.ip_forward", "1"}, {"net.ipv6.conf.all.disable_ipv6", "0"},
		},
		Tunings: []Tuning{{"", CPUGovernor, Values{"": "performance"}}, {"eth0", IRQAffinity, Values{"": "auto"}}, {"eth0", Rings, Values{"rx": "512", "tx": "256"}}},
	}
	texts := func(ops []Op) (out []string) {
		for _, op := range ops {
			out = append(out, op.String())
		}
		return out
	}
	set := []string{
		"make bond bond0 of m0 m1 lacp slow", "make vlan a.7 link bond0 id 7",
		"set sysctl net.ipv6.conf.all.disable_ipv6 = 0", "set sysctl net.ipv4.conf.default.rp_filter = 1",
		"set sysctl net.ipv4.conf.eth0.rp_filter = 2", "set cpu-governor performance", "set link eth0 rings rx 512 tx 256", "set link eth0 mtu 1400", "set link eth0 group 7", "set link a.7 mtu 1400",
		"set link eth0 up", "set link a.7 up", "set link eth0 irq-affinity auto",
		"set address 198.18.0.2/30 dev eth0", "set route 198.51.100.0/24 dev eth0", "set route 0.0.0.0/0 via 198.51.100.1",
		"add IPv4 rule 900 iif eth0 lookup 100", "set sysctl net.ipv4.ip_forward = 1",
	}
	drop := []string{
		"restore sysctl net.ipv4.ip_forward", "delete IPv4 rule 900 iif eth0 lookup 100", "delete route 0.0.0.0/0 via 198.51.100.1",
		"delete route 198.51.100.0/24 dev eth0", "delete address 198.18.0.2/30 dev eth0", "restore link eth0 irq-affinity", "give back link eth0",
		"restore link eth0 group", "restore link eth0 mtu", "give back link a.7", "restore link a.7 mtu", "restore link eth0 rings", "restore cpu-governor", "restore sysctl net.ipv4.conf.eth0.rp_filter", "restore sysctl net.ipv4.conf.default.rp_filter",
		"restore sysctl net.ipv6.conf.all.disable_ipv6", "delete vlan a.7 link bond0 id 7", "delete bond bond0 of m0 m1 lacp slow",
	}
	if d := gocmp.Diff(set, texts(Diff(State{}, all))); d != "" {
		t.Errorf("setting (- wanted, + got):\n%s", d)
	}
	if d := gocmp.Diff(drop, texts(Diff(all, State{}))); d != "" {
		t.Errorf("giving up (- wanted, + got):\n%s", d)
	}
}

func TestRulesAreWordedAsByIP(t *testing.T) {
	for want, r := range map[string]Rule{
		"IPv4 rule 900 iif eth0 lookup 100 suppress_ifgroup 7":          {Priority: 900, InLink: "eth0", Table: 100, SuppressGroup: 7},
		"IPv6 rule 901 iif eth0 prohibit":                               {Priority: 901, IPv6: true, InLink: "eth0", Prohibit: true},
		"IPv4 rule 902 to 198.51.100.7/32 lookup 254":                   {Priority: 902, To: pfx("198.51.100.7/32"), Table: 254},
		"IPv4 rule 902 from 10.0.0.1/32 to 10.0.0.2/32 lookup 188":      {Priority: 902, From: pfx("10.0.0.1/32"), To: pfx("10.0.0.2/32"), Table: 188},
		"IPv4 rule 902 fwmark 0x0/0x1000000 lookup 187":                 {Priority: 902, Mask: 1 << 24, Table: 187},
		"IPv4 rule 902 fwmark 0x1000000/0x3000000 lookup 254":           {Priority: 902, Mark: 1 << 24, Mask: 3 << 24, Table: 254},
		"IPv6 rule 903 oif eth0 lookup 188":                             {Priority: 903, IPv6: true, OutLink: "eth0", Table: 188},
		"IPv4 rule 904 lookup 254 suppress_prefixlength 0":              {Priority: 904, Table: 254, Shortest: 1},
		"IPv4 rule 905 iif a oif b lookup 254 suppress_prefixlength 16": {Priority: 905, InLink: "a", OutLink: "b", Table: 254, Shortest: 17},
	} {
		if got := r.String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// A field that is new in a State type must be thought of in Diff: this test is told when it was.
func TestEveryFieldIsKnownToDiff(t *testing.T) {
	known := map[reflect.Type][]string{
		reflect.TypeFor[State]():   {"Devices", "Links", "Addresses", "Routes", "Rules", "Sysctls", "Inner", "Tags", "Qdiscs", "Tunings"},
		reflect.TypeFor[Device]():  {"Name", "Parent", "VLAN", "Members", "LACP", "Keep", "Adopted", "Gone"},
		reflect.TypeFor[Link]():    {"Name", "Up", "MTU", "Group"},
		reflect.TypeFor[Address](): {"Link", "Prefix", "Keep", "Adopted"},
		reflect.TypeFor[Route]():   {"Prefix", "Type", "Via", "Link", "Metric", "Table", "Keep", "Adopted"},
		reflect.TypeFor[Rule]():    {"Priority", "IPv6", "InLink", "OutLink", "From", "To", "Mark", "Mask", "Table", "SuppressGroup", "Shortest", "Prohibit"},
		reflect.TypeFor[Sysctl]():  {"Key", "Value"},

		reflect.TypeFor[InnerSysctl](): {"Link", "Key", "Value"},
		reflect.TypeFor[Tags]():        {"Link", "InFrame"},
		reflect.TypeFor[Qdisc]():       {"Link", "FQ"},
		reflect.TypeFor[Tuning]():      {"Link", "What", "Values"},
	}
	for typ, fields := range known {
		var got []string
		for i := range typ.NumField() {
			got = append(got, typ.Field(i).Name)
		}
		if !slices.Equal(got, fields) {
			t.Errorf("%s has fields %v, Diff knows %v", typ, got, fields)
		}
	}
}

func TestUnspokenDefaultsAreNoDifference(t *testing.T) {
	have := State{Routes: []Route{
		{Prefix: pfx("::/0"), Type: Unicast, Via: hops("2001:db8::1", "2001:db8::3"), Link: "eth0", Metric: 1024, Table: 254},
	}, Sysctls: []Sysctl{{"net.ipv4.tcp_rmem", "4096\t131072\t6000000"}, {"net.ipv4.conf.all.forwarding", "1"}}}
	want := State{Routes: []Route{
		{Prefix: pfx("::/0"), Type: Unicast, Via: hops("2001:db8::3", "2001:db8::1"), Table: 254},
	}, Sysctls: []Sysctl{{"net/ipv4/tcp_rmem", "4096 131072 6000000"}, {"net.ipv4.ip_forward", "1"}}}
	if ops := Diff(have, want); len(ops) > 0 {
		t.Errorf("got %v", ops)
	}
	want.Routes[0].Prefix = netip.MustParsePrefix("0.0.0.0/0")
	if ops := Diff(have, want); len(ops) != 2 {
		t.Errorf("got %v", ops)
	}
}

// What a device loses when it is made anew, or goes down for another mode, is set again in the same go.
func TestWhatADeviceLosesIsSetAgain(t *testing.T) {
	state := func(change func(bond, child *Device)) State {
		s := State{
			Devices: []Device{{Name: "bond0", Members: []string{"m0", "m1"}, LACP: "fast"}, {Name: "bond0.7", Parent: "bond0", VLAN: 7}},
			Links:   []Link{{"bond0", true, 0, 0}, {"bond0.7", true, 0, 0}, {"eth0", true, 0, 0}},
			Addresses: []Address{{Link: "bond0", Prefix: pfx("198.18.0.2/30")}, {Link: "bond0.7", Prefix: pfx("198.18.7.1/24")},
				{Link: "eth0", Prefix: pfx("198.18.9.1/24")}},
			Sysctls: []Sysctl{{"net.ipv4.conf.bond0.7.forwarding", "1"}},
		}
		if change != nil {
			change(&s.Devices[0], &s.Devices[1])
		}
		return s
	}
	again := "set link bond0.7 up|set address 198.18.7.1/24 dev bond0.7|set sysctl net.ipv4.conf.bond0.7.forwarding = 1"
	both := "set link bond0 up|set link bond0.7 up|set address 198.18.0.2/30 dev bond0|set address 198.18.7.1/24 dev bond0.7|set sysctl net.ipv4.conf.bond0.7.forwarding = 1"
	for name, c := range map[string]struct {
		change func(bond, child *Device)
		want   string
	}{
		"nothing":              {nil, ""},
		"a member":             {func(b, _ *Device) { b.Members = []string{"m0"} }, "make bond bond0 of m0 m1 lacp fast"},
		"what stays":           {func(b, _ *Device) { b.Keep = true }, "make bond bond0 of m0 m1 lacp fast"},
		"who made it":          {func(b, c *Device) { b.Adopted, c.Adopted = true, true }, ""},
		"the mode":             {func(b, _ *Device) { b.LACP = "off" }, "make bond bond0 of m0 m1 lacp fast|" + both},
		"the VLAN":             {func(_, c *Device) { c.VLAN = 8 }, "make vlan bond0.7 link bond0 id 7|" + again},
		"the child has gone":   {func(_, c *Device) { c.Gone = true }, "make vlan bond0.7 link bond0 id 7|" + again},
		"another kind of link": {func(b, _ *Device) { *b = Device{Name: "bond0", Gone: true} }, "make bond bond0 of m0 m1 lacp fast|" + both},
	} {
		var got []string
		for _, op := range Diff(state(c.change), state(nil)) {
			got = append(got, op.String())
		}
		if text := strings.Join(got, "|"); text != c.want {
			t.Errorf("%s: got %s\nwant %s", name, text, c.want)
		}
	}
}
