package classify_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"unsafe"

	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/classify/classifytest"
)

// pairs is how many packets each shape is judged with in the tests.
const pairs = 100_000

func TestTablesAgreeWithTheModelOnClassBenchShapes(t *testing.T) {
	for _, shape := range classifytest.Shapes {
		t.Run(string(shape), func(t *testing.T) {
			for i, n := range []int{30, 300, 1000, 3000} {
				rng := rand.New(rand.NewPCG(uint64(n), 11))
				p := policy(classify.Drop, classify.FragDefault, classifytest.Rules(rng, shape, n)...)
				for range n / 20 { // some count only, and some exclude
					p.Rules[rng.IntN(n)].Shadow = true
					p.Rules[rng.IntN(n)].NotFrom = p.Rules[rng.IntN(n)].From
				}
				if i%2 == 1 {
					p.Default, p.Fragments = classify.Continue, classify.FragAccept
				}
				compare(t, []classify.Policy{p}, classifytest.Packets(rng, []classify.Policy{p}, pairs/4))
			}
		})
	}
}

func TestAHundredThousandRulesJudgeAsTheModelDoes(t *testing.T) {
	for _, shape := range classifytest.Shapes {
		t.Run(string(shape), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(5, 12))
			p := policy(classify.Drop, classify.FragDefault, classifytest.Rules(rng, shape, 100_000)...)
			tables, err := classify.Compile([]classify.Policy{p})
			var over *classify.BudgetError
			if errors.As(err, &over) && shape == classifytest.Nested {
				t.Logf("refused, which is allowed: %v", err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if cost := tables.Cost(); cost.Bytes > 128<<20 {
				t.Errorf("%d MB of maps", cost.Bytes>>20)
			}
			for _, packet := range classifytest.Packets(rng, []classify.Policy{p}, 300) {
				if want, got := classify.Judge(p, packet), tables.Eval(0, packet); !reflect.DeepEqual(want, got) {
					t.Fatalf("%+v: the model says %+v, the tables %+v", packet, want, got)
				}
			}
		})
	}
}

// TestAMillionPrefixesTakeTheMemoryTheyShould counts bytes: at most 64 an IPv4 prefix, 96 an IPv6 one, and a
// generation of a few prefixes stays small.
func TestAMillionPrefixesTakeTheMemoryTheyShould(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 13))
	for _, c := range []struct {
		name   string
		list   []netip.Prefix
		budget int64
	}{
		{"a million of IPv4", classifytest.Blocklist4(rng, 1_000_000), 64_000_000},
		{"a million of IPv6", classifytest.Blocklist6(rng, 1_000_000), 96_000_000},
		{"a thousand of IPv4", classifytest.Blocklist4(rng, 1_000), 64_000},
		{"twenty of IPv4", classifytest.Blocklist4(rng, 20), 4_000},
		{"twenty of IPv6", classifytest.Blocklist6(rng, 20), 6_000},
	} {
		tables := mustCompile(t, policy(classify.Accept, classify.FragDefault, rule(drop, func(r *classify.Rule) { r.From = c.list })))
		if cost := tables.Cost(); cost.Bytes > c.budget || cost.Prefixes != len(c.list) {
			t.Errorf("%s: %+v, the budget is %d bytes", c.name, cost, c.budget)
		}
		for range 20_000 {
			p := packet("192.0.2.1", "192.0.2.2", 80)
			p.Src, p.Dst = classifytest.Addr4(rng), classifytest.Addr4(rng)
			if c.list[0].Addr().Is6() {
				p.Src, p.Dst = classifytest.Addr6(rng), classifytest.Addr6(rng)
			}
			inside := rng.IntN(2) == 0
			if inside {
				p.Src = c.list[rng.IntN(len(c.list))].Addr()
			} else {
				inside = covered(c.list, p.Src)
			}
			if got := tables.Eval(0, p); (got.Rule == 1) != inside {
				t.Fatalf("%s: %s is inside: %v, and the tables say %+v", c.name, p.Src, inside, got)
			}
		}
	}
}

// covered asks every length of a sorted list.
func covered(list []netip.Prefix, a netip.Addr) bool {
	for bits := range a.BitLen() + 1 {
		p, _ := a.Prefix(bits)
		lo, hi := 0, len(list)
		for lo < hi {
			if mid := (lo + hi) / 2; list[mid].Compare(p) < 0 {
				lo = mid + 1
			} else {
				hi = mid
			}
		}
		if lo < len(list) && list[lo] == p {
			return true
		}
	}
	return false
}

// adversarial are rule sets that blow up a structure which is not careful.
func adversarial(rng *rand.Rand) map[string][]classify.Rule {
	sets := map[string][]classify.Rule{}
	chain := func(i int) netip.Prefix {
		return netip.PrefixFrom(netip.MustParseAddr("10.255.255.255"), 1+i%32).Masked()
	}
	for i := range 1024 { // every prefix in every other, on both sides
		r := rule(id(uint32(i+1)), protocol(6), ports(uint16(i), uint16(i+40)))
		r.From, r.To = []netip.Prefix{chain(i / 32)}, []netip.Prefix{chain(i % 32)}
		sets["chains on both sides"] = append(sets["chains on both sides"], r)
	}
	for i := range 1000 { // overlapping ranges that never decide alone
		r := rule(id(uint32(i+1)), protocol(17), ports(uint16(i), uint16(2000-i)), sourcePorts(uint16(i), uint16(i)))
		sets["onion of ports"] = append(sets["onion of ports"], r)
	}
	for i := range 500 { // a set against a set, with an exclusion in each
		r := rule(id(uint32(i + 1)))
		for range 8 {
			r.From = append(r.From, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(rng.IntN(4)), byte(rng.IntN(256)), 0}), 16+rng.IntN(9)))
			r.To = append(r.To, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(rng.IntN(4)), byte(rng.IntN(256)), 0}), 16+rng.IntN(9)))
			r.NotFrom = append(r.NotFrom, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(rng.IntN(4)), byte(rng.IntN(256)), byte(rng.IntN(256))}), 20+rng.IntN(13)))
		}
		sets["sets against sets"] = append(sets["sets against sets"], r)
	}
	for i := range 600 { // wide on one side, deep on the other, all in shadow
		r := rule(id(uint32(i+1)), shadow, from("10.0.0.0/8"))
		r.To = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), byte(i / 8), 1}), 8+i%25)}
		sets["shadows over nested destinations"] = append(sets["shadows over nested destinations"], r)
	}
	for i := range 300 { // the whole address space, cut in many ways
		r := rule(id(uint32(i+1)), from("0.0.0.0/0", "::/0"), protocol(i%256), ttl(uint8(i%3)))
		r.To = []netip.Prefix{netip.PrefixFrom(classifytest.Addr6(rng), rng.IntN(129)), netip.PrefixFrom(classifytest.Addr4(rng), rng.IntN(33))}
		sets["everything to anything"] = append(sets["everything to anything"], r)
	}
	return sets
}

func TestTablesAgreeWithTheModelOnAdversarialRules(t *testing.T) {
	for name, rules := range adversarial(rand.New(rand.NewPCG(1, 14))) {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(2, 14))
			policies := []classify.Policy{policy(classify.Drop, classify.FragDefault, rules...), policy(classify.Continue, classify.FragAccept, rules...)}
			compare(t, policies, classifytest.Packets(rng, policies, 10_000))
		})
	}
}

func TestRulesThatOnlyALongListCanHoldAreRefusedByName(t *testing.T) {
	p := policy(classify.Drop, classify.FragDefault)
	for i := range uint32(3000) { // they differ in what is not looked up
		r := rule(id(i+1), protocol(6), sourcePorts(uint16(i), uint16(i)))
		r.Name = fmt.Sprintf("rule-%d", i)
		p.Rules = append(p.Rules, r)
	}
	_, err := classify.Compile([]classify.Policy{p})
	var over *classify.BudgetError
	if !errors.As(err, &over) || over.Rule != fmt.Sprintf("ingress/rule-%d", abi.MaxWalk) || over.Budget != abi.MaxWalk {
		t.Fatalf("%v", err)
	}
	p.Rules = p.Rules[:abi.MaxWalk]
	tables := mustCompile(t, p)
	last := packet("192.0.2.1", "192.0.2.2", 1)
	last.SrcPort = abi.MaxWalk - 1
	if d := tables.Eval(0, last); d.Rule != abi.MaxWalk {
		t.Errorf("the last of the list: %+v", d)
	}
}

func TestTooManyEntriesAreRefusedByName(t *testing.T) {
	p := policy(classify.Drop, classify.FragDefault)
	for i := range uint32(abi.MaxRules/1024 + 1) {
		r := rule(id(i+1), protocol(6))
		r.Name = fmt.Sprintf("rule-%d", i)
		r.From = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}), 32)}
		for n := range uint16(32) {
			r.Ports = append(r.Ports, classify.PortRange{First: 10 * n, Last: 10 * n})
			r.SourcePorts = append(r.SourcePorts, classify.PortRange{First: 10 * n, Last: 10 * n})
		}
		p.Rules = append(p.Rules, r)
	}
	_, err := classify.Compile([]classify.Policy{p})
	var over *classify.BudgetError
	if !errors.As(err, &over) || over.Rule != fmt.Sprintf("ingress/rule-%d", abi.MaxRules/1024) || over.Needs != 1024 || over.Free != 0 ||
		over.Total != abi.MaxRules+1024 || !strings.Contains(err.Error(), "write its ports as fewer ranges") {
		t.Fatalf("%v", err)
	}
}

// TestTablesKeepTheirBudgetPerPrefixAndRule bounds bytes by the entry, beside the roots of two large prefix tables. With 1M
// prefixes and 100,000 rules that is 113 MB a generation; XDP and tc each have one, and while they change another: 452 MB.
func TestTablesKeepTheirBudgetPerPrefixAndRule(t *testing.T) {
	const roots, perPrefix, perRule, prefixes, rules = 2 << 23, 32, 640, 100_000, 10_000
	if got := unsafe.Sizeof(abi.Bucket{}); got != 64 || unsafe.Sizeof(abi.Rule{}) != 64 {
		t.Errorf("a bucket has %d bytes, a rule %d: each is to be one cache line", got, unsafe.Sizeof(abi.Rule{}))
	}
	for _, shape := range classifytest.Shapes {
		rng := rand.New(rand.NewPCG(7, 14))
		set := classifytest.Blocklist4(rng, prefixes)
		list := append([]classify.Rule{rule(id(rules+1), drop, func(r *classify.Rule) { r.From = set })}, classifytest.Rules(rng, shape, rules)...)
		cost := mustCompile(t, policy(classify.Accept, classify.FragDefault, list...)).Cost()
		if budget := int64(roots + perPrefix*prefixes + perRule*rules); cost.Bytes > budget {
			t.Errorf("%s: %d bytes, the budget is %d", shape, cost.Bytes, budget)
		}
	}
}

// TestMostPacketsAreDecidedByOneSlot counts: of the buckets of large rule sets that look like real ones, most hold all that
// decides, and the way to one is short.
func TestMostPacketsAreDecidedByOneSlot(t *testing.T) {
	for shape, share := range map[classifytest.Shape]int{classifytest.ACL: 90, classifytest.FW: 75, classifytest.IPC: 90} {
		tables := mustCompile(t, policy(classify.Drop, classify.FragDefault, classifytest.Rules(rand.New(rand.NewPCG(8, 15)), shape, 20_000)...))
		slots, alone := 0, 0
		for _, b := range tables.Buckets {
			for _, s := range b.Slot {
				if s.Leaf != 0 {
					slots++
				}
				if s.Flags&abi.HeadAlone != 0 {
					alone++
				}
			}
		}
		if 100*alone < share*slots || 4*slots < len(tables.Buckets)*abi.BucketSlots {
			t.Errorf("%s: of %d slots %d are used, %d decide alone", shape, len(tables.Buckets)*abi.BucketSlots, slots, alone)
		}
	}
}
