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

// world is several policies that share lists and rules, change side by side, come and go, and are once more what they were.
type world struct {
	rng      *rand.Rand
	policies []classify.Policy
	history  [][]classify.Policy
	id       uint32
}

func newWorld(seed uint64) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 77)), id: 10000}
	w.policies = classifytest.Policies(w.rng)
	if w.rng.IntN(2) == 0 { // rules enough for buckets
		shape := classifytest.Shapes[w.rng.IntN(len(classifytest.Shapes))]
		w.policies = append(w.policies, policy(classify.Action(w.rng.IntN(3)), classify.FragDefault, classifytest.Rules(w.rng, shape, 200+w.rng.IntN(200))...))
	}
	return w
}

// rule is a new one, in every third case with a list of another.
func (w *world) rule() classify.Rule {
	var rules []classify.Rule
	for len(rules) == 0 {
		for _, p := range classifytest.Policies(w.rng) {
			rules = append(rules, p.Rules...)
		}
	}
	r := rules[w.rng.IntN(len(rules))]
	w.id++
	r.ID, r.Name = w.id, fmt.Sprint("n", w.id)
	if lists := w.lists(); len(lists) > 0 && w.rng.IntN(3) == 0 {
		*listsOf(&r)[w.rng.IntN(4)] = lists[w.rng.IntN(len(lists))]
	}
	return r
}

func listsOf(r *classify.Rule) []*[]netip.Prefix {
	return []*[]netip.Prefix{&r.From, &r.To, &r.NotFrom, &r.NotTo}
}

// lists are all that hold something.
func (w *world) lists() (out [][]netip.Prefix) {
	for _, p := range w.policies {
		for i := range p.Rules {
			for _, l := range listsOf(&p.Rules[i]) {
				if len(*l) > 0 {
					out = append(out, *l)
				}
			}
		}
	}
	return out
}

// edges are prefixes at the ends of their families.
var edges = []string{"0.0.0.0/0", "::/0", "255.255.255.255/32", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128", "::/128", "8000::/1"}

// near is a prefix around or within one of a list, in one of ten cases with bits that its length does not cover.
func (w *world) near(list []netip.Prefix) netip.Prefix {
	if len(list) == 0 || w.rng.IntN(8) == 0 {
		return netip.MustParsePrefix(edges[w.rng.IntN(len(edges))])
	}
	p := list[w.rng.IntN(len(list))]
	p = netip.PrefixFrom(p.Addr(), min(max(p.Bits()-3+w.rng.IntN(7), 0), p.Addr().BitLen()))
	if w.rng.IntN(10) == 0 {
		return p
	}
	return p.Masked()
}

// edited is another list: sorted anew, with prefixes more or less, twice the same, none, or the same in other memory.
func (w *world) edited(list []netip.Prefix) []netip.Prefix {
	list = slices.Clone(list)
	switch w.rng.IntN(8) {
	case 0:
		return []netip.Prefix{}
	case 1:
		slices.SortFunc(list, netip.Prefix.Compare)
	case 2:
		w.rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	case 3:
		return list
	}
	for range 1 + w.rng.IntN(4) {
		at := w.rng.IntN(len(list) + 1)
		switch {
		case at < len(list) && w.rng.IntN(2) == 0:
			list = slices.Delete(list, at, at+1)
		case at < len(list) && w.rng.IntN(4) == 0:
			list = append(list, list[at])
		default:
			list = slices.Insert(list, at, w.near(list))
		}
	}
	return list
}

// change makes the next policies, and says which of them. What was handed to the compiler before stays as it is.
func (w *world) change() int {
	rng, next := w.rng, slices.Clone(w.policies)
	w.history = append(w.history, w.policies)
	for i := range next {
		next[i].Rules = slices.Clone(next[i].Rules)
	}
	k, o := rng.IntN(len(next)), rng.IntN(len(next))
	p, other := &next[k], &next[o]
	n := len(p.Rules)
	at := rng.IntN(max(n, 1))
	kind := rng.IntN(13)
	switch {
	case kind == 0: // a policy comes
		more := classifytest.Policies(rng)[0]
		for i := range more.Rules {
			w.id++
			more.Rules[i].ID = w.id
		}
		w.id++
		more.Name, more.DefaultID = fmt.Sprint("w", w.id), w.id
		next = append(next, more)
	case kind == 1 && len(next) > 1: // one goes
		next = slices.Delete(next, k, k+1)
	case kind == 2: // what was
		next = w.history[max(0, len(w.history)-1-rng.IntN(4))]
	case kind == 3:
		p.Default, p.Fragments = classify.Action(rng.IntN(3)), classify.Fragments(rng.IntN(4))
	case kind == 4:
		p.Rules, other.Rules = other.Rules, p.Rules
	case kind == 5 || n == 0: // several rules more
		for range 1 + rng.IntN(5) {
			p.Rules = slices.Insert(p.Rules, rng.IntN(len(p.Rules)+1), w.rule())
		}
	case kind == 6: // several less
		p.Rules = slices.Delete(p.Rules, at, min(n, at+1+rng.IntN(6)))
	case kind == 7: // a block elsewhere
		block := slices.Clone(p.Rules[at:min(n, at+1+rng.IntN(n))])
		p.Rules = slices.Delete(p.Rules, at, at+len(block))
		p.Rules = slices.Insert(p.Rules, rng.IntN(len(p.Rules)+1), block...)
	case kind == 8 && o != k: // to another policy
		other.Rules = slices.Insert(other.Rules, rng.IntN(len(other.Rules)+1), p.Rules[at])
		p.Rules = slices.Delete(p.Rules, at, at+1)
	case kind == 9: // twice the same
		p.Rules = slices.Insert(p.Rules, rng.IntN(n+1), p.Rules[at])
	case kind == 10: // another one of that id
		id, name := p.Rules[at].ID, p.Rules[at].Name
		p.Rules[at] = w.rule()
		p.Rules[at].ID, p.Rules[at].Name = id, name
	case kind == 11: // a list of this rule alone
		l := listsOf(&p.Rules[at])[rng.IntN(4)]
		*l = w.edited(*l)
	default: // a list, wherever it is used
		if lists := w.lists(); len(lists) > 0 {
			was := lists[rng.IntN(len(lists))]
			replaceList(next, was, w.edited(was))
		}
	}
	w.policies = next
	return kind
}

func replaceList(policies []classify.Policy, was, is []netip.Prefix) {
	for i := range policies {
		for j := range policies[i].Rules {
			for _, l := range listsOf(&policies[i].Rules[j]) {
				if len(*l) == len(was) && &(*l)[0] == &was[0] {
					*l = is
				}
			}
		}
	}
}

// compiled is an outcome, with packets about it.
type compiled struct {
	policies []classify.Policy
	tables   *classify.Tables
	packets  []classify.Packet
}

func (c compiled) check(t *testing.T, what string) {
	t.Helper()
	for i := range c.policies {
		for _, p := range c.packets {
			if want, got := classify.Judge(c.policies[i], p), c.tables.Eval(i, p); !reflect.DeepEqual(want, got) {
				t.Fatalf("%s: policy %d, %+v: the model says %+v, the tables %+v", what, i, p, want, got)
			}
		}
	}
}

// live changes a world so often, and checks after each step what was compiled then and at the two steps before.
func (w *world) live(t *testing.T, steps int) (compilations, stepped int) {
	t.Helper()
	var cache classify.Cache
	var former []compiled
	for step := range steps {
		what := "at first"
		if step > 0 {
			what = fmt.Sprintf("step %d, change %d", step, w.change())
		}
		tables, err := cache.Compile(w.policies)
		if _, fresh := classify.Compile(w.policies); (err == nil) != (fresh == nil) {
			t.Fatalf("%s: %v, and anew %v", what, err, fresh)
		}
		if err != nil { // too much for the tables
			if len(w.history) == 0 {
				return compilations, stepped
			}
			w.policies = w.history[len(w.history)-1]
			continue
		}
		if compilations++; cache.Steps() > 0 {
			stepped++
		}
		former = append(former, compiled{w.policies, tables, classifytest.Packets(w.rng, w.policies, 30)})
		former = former[max(0, len(former)-3):]
		for back, c := range slices.Backward(former) {
			c.check(t, fmt.Sprintf("%s, tables of %d before", what, len(former)-1-back))
		}
	}
	return compilations, stepped
}

// Tables are in use until the next ones are live, and an apply goes back to them: later steps must leave them alone.
func TestPoliciesChangeSideBySideAndFormerTablesStayWhatTheyWere(t *testing.T) {
	compilations, stepped := 0, 0
	for seed := range uint64(8) {
		all, some := newWorld(seed).live(t, 25)
		compilations, stepped = compilations+all, stepped+some
	}
	if stepped < compilations/4 {
		t.Errorf("%d of %d compilations made use of the one before", stepped, compilations)
	}
}

// FuzzWorlds lets worlds live as a fuzzer likes.
func FuzzWorlds(f *testing.F) {
	f.Add(uint64(100), uint8(10))
	f.Fuzz(func(t *testing.T, seed uint64, steps uint8) { newWorld(seed).live(t, int(steps%64)) })
}
