package classify_test

import (
	"crypto/sha256"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"sluice/xdp/classify"
	"sluice/xdp/classify/classifytest"
)

func digest(policies ...classify.Policy) [32]byte {
	h := sha256.New()
	sums := classify.NewSums()
	sums.Digest(h, policies)
	once := [32]byte(h.Sum(nil))
	h.Reset()
	if sums.Digest(h, policies); [32]byte(h.Sum(nil)) != once {
		panic("what was read before gives another digest")
	}
	return once
}

// change sets a field to what it is not.
func change(t *testing.T, field reflect.Value) {
	t.Helper()
	switch field.Kind() {
	case reflect.String:
		field.SetString(field.String() + "x")
	case reflect.Bool:
		field.SetBool(!field.Bool())
	case reflect.Int, reflect.Int32, reflect.Int64:
		field.SetInt(field.Int() + 1)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		field.SetUint(field.Uint() + 1)
	case reflect.Struct:
		if field.Type() == reflect.TypeFor[netip.Prefix]() {
			field.Set(reflect.ValueOf(netip.MustParsePrefix("192.0.2.0/24")))
			return
		}
		change(t, field.Field(0))
	case reflect.Slice:
		grown := reflect.MakeSlice(field.Type(), 1, 1)
		change(t, grown.Index(0))
		field.Set(grown)
	default:
		t.Fatalf("a field of kind %s: say here how it changes", field.Kind())
	}
}

func TestEveryFieldOfARuleAndAPolicyChangesTheDigest(t *testing.T) {
	for i := range reflect.TypeFor[classify.Rule]().NumField() {
		p := policy(classify.Drop, classify.FragDefault, rule())
		before := digest(p)
		change(t, reflect.ValueOf(&p.Rules[0]).Elem().Field(i))
		if digest(p) == before {
			t.Errorf("Rule.%s is not in the digest", reflect.TypeFor[classify.Rule]().Field(i).Name)
		}
	}
	for i := range reflect.TypeFor[classify.Policy]().NumField() {
		p := policy(classify.Drop, classify.FragDefault, rule())
		before := digest(p)
		change(t, reflect.ValueOf(&p).Elem().Field(i))
		if digest(p) == before {
			t.Errorf("Policy.%s is not in the digest", reflect.TypeFor[classify.Policy]().Field(i).Name)
		}
	}
}

func TestTheDigestKeepsNilAndEmptyApartAndIgnoresIdentity(t *testing.T) {
	if digest(policy(classify.Drop, classify.FragDefault, rule())) == digest(policy(classify.Drop, classify.FragDefault, rule(from()))) {
		t.Error("any address and no address have one digest")
	}
	long := classifytest.Blocklist4(rand.New(rand.NewPCG(1, 1)), 5000)
	with := func(list []netip.Prefix) [32]byte {
		r := rule()
		r.From, r.NotTo = list, list
		return digest(policy(classify.Drop, classify.FragDefault, r))
	}
	if with(long) != with(slices.Clone(long)) {
		t.Error("the same prefixes in another slice have another digest")
	}
	other := slices.Clone(long)
	other[4999] = netip.MustParsePrefix("0.0.0.0/0")
	if with(long) == with(other) {
		t.Error("one prefix of 5000 made no difference")
	}
	mapped := rule(from("::ffff:192.0.2.0/120"))
	if digest(policy(classify.Drop, classify.FragDefault, mapped)) == digest(policy(classify.Drop, classify.FragDefault, rule(from("192.0.2.0/24")))) {
		t.Error("an IPv4-mapped IPv6 prefix has the digest of another")
	}
}

func BenchmarkDigest(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 5))
	p := policy(classify.Drop, classify.FragDefault, classifytest.Rules(rng, classifytest.ACL, 100_000)...)
	p.Rules[0].From = classifytest.Blocklist4(rng, 1_000_000)
	for b.Loop() {
		digest(p)
	}
}
