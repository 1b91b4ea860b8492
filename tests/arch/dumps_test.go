package arch

import (
	"strings"
	"testing"
)

func TestNobodyBelievesAnInterruptedDump(t *testing.T) {
	files, err := Tree(root)
	if err != nil {
		t.Fatal(err)
	}
	faults, err := UnguardedDumps(files)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range faults {
		t.Error(f)
	}
}

func TestDumpsThatMayBeInterruptedAreCaught(t *testing.T) {
	for _, c := range []struct{ name, path, code, fault string }{
		{"a bare list", "tc/a.go", "nl.LinkList()", "tc/a.go:3:25: LinkList"},
		{"of the package", "tc/a.go", "netlink.AddrList(nil, 0)", "AddrList"},
		{"as a value", "tc/a.go", "again(nl.LinkList)", "LinkList"},
		{"guarded", "tc/a.go", "netdump.List(nl.LinkList)", ""},
		{"guarded in a function", "tc/a.go", "netdump.List(func() { return nl.RuleList(2) })", ""},
		{"routes that are lost", "tc/a.go", "netdump.List(func() { return nl.RouteListFiltered(2, f, 0) })", "use netdump.Routes"},
		{"routes", "tc/a.go", "netdump.Routes(nl, 2, f, 0)", ""},
		{"something else", "tc/a.go", "nl.PlayList()", ""},
		{"a test", "tc/a_test.go", "nl.LinkList()", ""},
		{"a harness", "tests/netns/a.go", "nl.LinkList()", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			code := "package a; import " + netlinkPath + "\n\nfunc f() { x, err := 1, " + c.code + " }\n"
			faults, err := UnguardedDumps([]File{{c.path, []byte(code)}})
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case c.fault == "" && len(faults) > 0:
				t.Errorf("want no fault, got %q", faults)
			case c.fault != "" && (len(faults) != 1 || !strings.Contains(faults[0], c.fault)):
				t.Errorf("want one fault with %q, got %q", c.fault, faults)
			}
		})
	}
}
