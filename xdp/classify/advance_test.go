package classify_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"sluice/xdp/classify"
	"sluice/xdp/classify/classifytest"
)

// site is a policy whose rules share sets, as files have them, and the ways in which operators and feeds change it.
type site struct {
	rng  *rand.Rand
	sets [][]netip.Prefix
	uses [][2]int // by rule: set of its sources, set of its destinations; -1: the rule's own prefixes
	p    classify.Policy
	id   uint32
}

func newSite(rng *rand.Rand, shape classifytest.Shape, rules int) *site {
	s := &site{rng: rng, id: uint32(rules)}
	s.sets = [][]netip.Prefix{classifytest.Blocklist4(rng, 1200), classifytest.Blocklist6(rng, 1100), {}, classifytest.Blocklist4(rng, 40)}
	s.p = policy(classify.Drop, classify.FragDefault, classifytest.Rules(rng, shape, rules)...)
	s.p.Name = "site"
	for i := range s.p.Rules {
		s.p.Rules[i].Name = fmt.Sprint("r", i)
		s.uses = append(s.uses, [2]int{-1, -1})
		for d := range s.uses[i] {
			if rng.IntN(100) < 3 {
				s.uses[i][d] = rng.IntN(len(s.sets))
			}
		}
	}
	s.resolve()
	return s
}

func (s *site) resolve() {
	s.p.Rules = slices.Clone(s.p.Rules)
	for i, uses := range s.uses {
		if uses[0] >= 0 {
			s.p.Rules[i].From = s.sets[uses[0]]
		}
		if uses[1] >= 0 {
			s.p.Rules[i].NotTo = s.sets[uses[1]]
		}
	}
}

// prefix returns one around, within or beside what is there.
func (s *site) prefix() netip.Prefix {
	r := &s.p.Rules[s.rng.IntN(len(s.p.Rules))]
	lists := append(slices.Clone(r.From), r.To...)
	if len(lists) == 0 || s.rng.IntN(6) == 0 {
		if s.rng.IntN(2) == 0 {
			return netip.PrefixFrom(classifytest.Addr6(s.rng), s.rng.IntN(129)).Masked()
		}
		return netip.PrefixFrom(classifytest.Addr4(s.rng), s.rng.IntN(33)).Masked()
	}
	p := lists[s.rng.IntN(len(lists))]
	bits := min(max(p.Bits()-3+s.rng.IntN(7), 0), p.Addr().BitLen())
	return netip.PrefixFrom(p.Addr(), bits).Masked()
}

func (s *site) change() string {
	at := s.rng.IntN(len(s.p.Rules))
	switch s.rng.IntN(9) {
	case 0: // a feed
		n := s.rng.IntN(len(s.sets))
		set := slices.Clone(s.sets[n])
		for range 1 + s.rng.IntN(3) {
			if len(set) > 0 && s.rng.IntN(2) == 0 {
				i := s.rng.IntN(len(set))
				set = slices.Delete(set, i, i+1)
				continue
			}
			set = append(set, s.prefix())
		}
		slices.SortFunc(set, netip.Prefix.Compare)
		s.sets[n] = slices.Compact(set)
		s.resolve()
		return fmt.Sprint("set ", n)
	case 1, 2: // a new rule
		s.id++
		r := classify.Rule{ID: s.id, Name: fmt.Sprint("new-", s.id), Protocol: classify.AnyProtocol, Action: classify.Action(1 + s.rng.IntN(2)),
			From: []netip.Prefix{s.prefix()}}
		if s.rng.IntN(2) == 0 {
			r.To = []netip.Prefix{s.prefix(), s.prefix()}
		}
		if s.rng.IntN(2) == 0 {
			r.Protocol, r.Ports = 6, []classify.PortRange{{First: uint16(s.rng.IntN(500)), Last: 600}}
		}
		s.p.Rules, s.uses = slices.Insert(slices.Clone(s.p.Rules), at, r), slices.Insert(s.uses, at, [2]int{-1, -1})
		return fmt.Sprint("insert at ", at)
	case 3: // rules less
		n := min(1+s.rng.IntN(3), len(s.p.Rules)-at)
		s.p.Rules, s.uses = slices.Delete(slices.Clone(s.p.Rules), at, at+n), slices.Delete(s.uses, at, at+n)
		return fmt.Sprint("delete at ", at)
	case 4: // another place
		to := s.rng.IntN(len(s.p.Rules))
		s.p.Rules = slices.Clone(s.p.Rules)
		s.p.Rules[at], s.p.Rules[to] = s.p.Rules[to], s.p.Rules[at]
		s.uses[at], s.uses[to] = s.uses[to], s.uses[at]
		return fmt.Sprint("swap ", at, " and ", to)
	}
	s.p.Rules = slices.Clone(s.p.Rules)
	r := &s.p.Rules[at]
	switch s.rng.IntN(6) {
	case 0:
		r.Shadow = !r.Shadow
	case 1:
		r.To, r.NotTo = []netip.Prefix{s.prefix()}, nil
		s.uses[at][1] = -1
	case 2:
		r.NotFrom = []netip.Prefix{s.prefix(), s.prefix()}
	case 3:
		r.SourcePorts = []classify.PortRange{{First: 5, Last: 6}, {First: 8, Last: uint16(8 + s.rng.IntN(3))}}
	case 4: // never matches
		r.From = []netip.Prefix{}
		s.uses[at][0] = -1
	case 5:
		s.uses[at][0] = s.rng.IntN(len(s.sets))
		s.resolve()
	}
	return fmt.Sprint("edit ", at)
}

// check compares with the model, and with what a packet costs at most.
func (s *site) check(t *testing.T, tables *classify.Tables, packets int) {
	t.Helper()
	for _, p := range classifytest.Packets(s.rng, []classify.Policy{s.p}, packets) {
		if want, got := classify.Judge(s.p, p), tables.Eval(0, p); !reflect.DeepEqual(want, got) {
			t.Fatalf("%+v: the model says %+v, the tables %+v", p, want, got)
		}
	}
}

func TestManySmallChangesJudgeAsTheModelDoes(t *testing.T) {
	for _, shape := range classifytest.Shapes {
		t.Run(string(shape), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(9, 41))
			s := newSite(rng, shape, 300)
			var cache classify.Cache
			incremental := 0
			for step := range 80 {
				what := ""
				if step > 0 {
					what = s.change()
				}
				tables, err := cache.Compile([]classify.Policy{s.p})
				if err != nil {
					t.Fatalf("step %d, %s: %v", step, what, err)
				}
				if cache.Steps() > 0 {
					incremental++
				}
				if again, _ := cache.Compile([]classify.Policy{s.p}); again != tables {
					t.Fatalf("step %d, %s: the same rules have other tables", step, what)
				}
				s.check(t, tables, 80)
			}
			if incremental < 60 {
				t.Errorf("%d of 80 compilations made use of the one before", incremental)
			}
			tables, err := cache.Compile([]classify.Policy{s.p})
			if err != nil {
				t.Fatal(err)
			}
			agree(t, rng, []classify.Policy{s.p}, tables, 5000)
		})
	}
}

// TestAChangeBackAndForthComesToTheSamePlace: lists that come again have their classes again, so nothing grows.
func TestAChangeBackAndForthWastesLittle(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 43))
	s := newSite(rng, classifytest.ACL, 2000)
	var cache classify.Cache
	first, err := cache.Compile([]classify.Policy{s.p})
	if err != nil {
		t.Fatal(err)
	}
	with := slices.Insert(slices.Clone(s.p.Rules), 100, classify.Rule{ID: 5000, Name: "more", Protocol: 6, Action: classify.Drop,
		From: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}, To: []netip.Prefix{netip.MustParsePrefix("10.2.3.0/24")}})
	without := s.p.Rules
	for i := range 60 {
		s.p.Rules = without
		if i%2 == 0 {
			s.p.Rules = with
		}
		tables, err := cache.Compile([]classify.Policy{s.p})
		if err != nil {
			t.Fatal(err)
		}
		s.check(t, tables, 100)
		if now, before := tables.Cost(), first.Cost(); now.Bytes > before.Bytes*3/2 || now.Classes > before.Classes*3/2 {
			t.Fatalf("change %d: %+v, at first %+v", i, now, before)
		}
	}
}

// FuzzChanges lets sites change as a fuzzer likes.
func FuzzChanges(f *testing.F) {
	f.Add(uint64(1), uint8(0), uint8(20))
	f.Add(uint64(2), uint8(3), uint8(40))
	f.Fuzz(func(t *testing.T, seed uint64, shape, steps uint8) {
		rng := rand.New(rand.NewPCG(seed, 44))
		s := newSite(rng, classifytest.Shapes[int(shape)%len(classifytest.Shapes)], 5+rng.IntN(300))
		var cache classify.Cache
		for range steps % 64 {
			tables, err := cache.Compile([]classify.Policy{s.p})
			if err != nil {
				return // too much for the tables
			}
			s.check(t, tables, 60)
			if len(s.p.Rules) < 5 {
				return
			}
			s.change()
		}
	})
}

func TestEveryFieldMakesARuleAnother(t *testing.T) {
	for i := range reflect.TypeFor[classify.Rule]().NumField() {
		a, b := rule(), rule()
		if !classify.SameRule(&a, &b) {
			t.Fatal("a rule is not itself")
		}
		change(t, reflect.ValueOf(&b).Elem().Field(i))
		if classify.SameRule(&a, &b) {
			t.Errorf("Rule.%s makes no difference", reflect.TypeFor[classify.Rule]().Field(i).Name)
		}
	}
	any, none := rule(), rule(from())
	if classify.SameRule(&any, &none) {
		t.Error("any address and no address are the same")
	}
}

func TestEditsMakeOneListOfAnother(t *testing.T) {
	same := func(a, b *int) bool { return *a == *b }
	rng := rand.New(rand.NewPCG(6, 45))
	for range 3000 {
		former := make([]int, rng.IntN(200))
		for i := range former {
			former[i] = rng.IntN(1 + rng.IntN(300))
		}
		now := slices.Clone(former)
		for range rng.IntN(5) {
			at := rng.IntN(len(now) + 1)
			now = slices.Insert(now, at, rng.IntN(300))
			if end := min(at+rng.IntN(90), len(now)); rng.IntN(2) == 0 {
				now = slices.Delete(now, at, end)
			}
		}
		var made []int
		at := 0
		for _, e := range classify.Edits(former, now, same) {
			made = append(append(made, former[at:e.Before]...), now[e.Now:e.Now+e.Added]...)
			at = e.Before + e.Removed
			if len(made) != e.Now+e.Added {
				t.Fatalf("an edit out of place: %+v", e)
			}
		}
		if made = append(made, former[at:]...); !slices.Equal(made, now) {
			t.Fatalf("%v and the edits make %v, not %v", former, made, now)
		}
	}
	if edits := classify.Edits([]int{1, 2, 3, 4, 5}, []int{1, 2, 9, 4, 5}, same); !reflect.DeepEqual(edits, []classify.Edit{{Before: 2, Removed: 1, Now: 2, Added: 1}}) {
		t.Errorf("one element is another: %+v", edits)
	}
}
