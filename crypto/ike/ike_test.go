package ike

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/crypto/keys"
)

// example is a connection of which every field is set.
func example() Conn {
	return Conn{
		Tunnel: "fra1", Peer: "fra1-a", Local: netip.MustParseAddr("198.18.0.1"), Remote: netip.MustParseAddrPort("198.18.0.2:4500"),
		LocalID: "edge-1", RemoteID: "fra1", SecretFile: "/secret", InterfaceID: 0x51c00001, Mark: 0x100,
		Prefixes:    []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16"), netip.MustParsePrefix("fd00:20::/64")},
		Encapsulate: true, ReplayWindow: 1024, Rekey: 2 * time.Hour,
		IKEProposals: []string{"aes256gcm16-prfsha384-ecp384"}, ESPProposals: []string{"aes256gcm16-ecp384-esn"},
	}
}

func TestTheDigestChangesWithEveryFieldButTheSecret(t *testing.T) {
	base := example()
	fields := reflect.TypeFor[Conn]()
	for i := range fields.NumField() {
		name := fields.Field(i).Name
		changed := example()
		f := reflect.ValueOf(&changed).Elem().Field(i)
		switch f.Interface().(type) {
		case string:
			f.SetString("other")
		case bool:
			f.SetBool(false)
		case int, time.Duration:
			f.SetInt(7)
		case uint32:
			f.SetUint(7)
		case netip.Addr:
			f.Set(reflect.ValueOf(netip.MustParseAddr("198.18.0.9")))
		case netip.AddrPort:
			f.Set(reflect.ValueOf(netip.MustParseAddrPort("198.18.0.9:500")))
		case []netip.Prefix:
			f.Set(reflect.ValueOf(base.Prefixes[:1]))
		case *Certificates:
			f.Set(reflect.ValueOf(&Certificates{}))
		case []string:
			f.Set(reflect.ValueOf([]string{"other"}))
		default:
			t.Fatalf("the test knows no other value for %s", name)
		}
		if same := changed.Digest() == base.Digest(); same != (name == "SecretFile") {
			t.Errorf("another %s: same digest %v", name, same)
		}
	}
	certified, moved := example(), example()
	certified.Certificates, moved.Certificates = &Certificates{Certificate: "/a"}, &Certificates{Certificate: "/b"}
	if certified.Digest() != moved.Digest() {
		t.Error("where a certificate's file is counts")
	}
	turned := example()
	slices.Reverse(turned.Prefixes)
	if turned.Digest() != base.Digest() || turned.Prefixes[0].Addr().Is4() {
		t.Error("the order of prefixes counts, or was changed for the caller")
	}
}

func TestConnectionsThatCharonWouldMisunderstandAreRefused(t *testing.T) {
	cases := map[string]struct {
		change func(*Conn)
		says   string
	}{
		"good":             {func(*Conn) {}, ""},
		"no peer":          {func(c *Conn) { c.Peer = "" }, "names"},
		"a colon":          {func(c *Conn) { c.Peer = "a:b" }, "colons"},
		"no local address": {func(c *Conn) { c.Local = netip.Addr{} }, "address"},
		"no endpoint":      {func(c *Conn) { c.Remote = netip.AddrPort{} }, "address"},
		"two families":     {func(c *Conn) { c.Local = netip.MustParseAddr("2001:db8::1") }, "two families"},
		"no prefixes":      {func(c *Conn) { c.Prefixes = nil }, "no prefixes"},
		"one id for both":  {func(c *Conn) { c.LocalID = c.RemoteID }, "set ids that differ"},
		"no id":            {func(c *Conn) { c.RemoteID = "" }, "cannot be an id"},
		"an id for all":    {func(c *Conn) { c.RemoteID = "%any" }, "cannot be an id"},
		"a pattern":        {func(c *Conn) { c.RemoteID = "*@example.com" }, "cannot be an id"},
	}
	for name, c := range cases {
		conn := example()
		c.change(&conn)
		err := conn.Check()
		if c.says == "" && err == nil {
			continue
		}
		if err == nil || c.says == "" || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "tunnel fra1") {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}

func TestWhatCharonIsTold(t *testing.T) {
	conn := example()
	want := connMessage{
		Version: "2", LocalAddrs: []string{"198.18.0.1"}, RemoteAddrs: []string{"198.18.0.2", "0.0.0.0/0"}, LocalPort: "4500", RemotePort: "4500",
		Proposals: []string{"aes256gcm16-prfsha384-ecp384"}, Encap: "yes", MOBIKE: "no", SendCertReq: "no", Fragmentation: "yes",
		Unique: "no", KeyingTries: "1", DPDDelay: "10s", RekeyTime: "28800s",
		Local: authMessage{Auth: "psk", ID: "edge-1"}, Remote: authMessage{Auth: "psk", ID: "fra1"},
		Children: map[string]childMessage{conn.Digest(): {
			Mode: "tunnel", LocalTS: []string{"0.0.0.0/0", "::/0"}, RemoteTS: []string{"10.20.0.0/16", "fd00:20::/64"},
			ESPProposals: []string{"aes256gcm16-ecp384-esn"}, ReqID: "1197549736", IfIDIn: "0x51c00001", IfIDOut: "0x51c00001",
			SetMarkOut: "0x100/0xffffffff", ReplayWindow: "1024", RekeyTime: "7200s", StartAction: "trap", DPDAction: "start", CloseAction: "none",
		}},
	}
	if diff := cmp.Diff(want, conn.message(proof{})); diff != "" {
		t.Errorf("(-want +have):\n%s", diff)
	}
}

func TestWhatIsNotSetIsCharonsOwn(t *testing.T) {
	conn := Conn{
		Tunnel: "fra1", Peer: "a", Local: netip.MustParseAddr("2001:db8::1"), Remote: netip.MustParseAddrPort("[2001:db8::2]:500"),
		LocalID: "z", RemoteID: "a", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16")},
	}
	m := conn.message(proof{})
	child := m.Children[conn.Digest()]
	if m.LocalPort+m.RemotePort != "" || child.IfIDIn+child.SetMarkOut+child.ReplayWindow != "" || m.Encap != "no" {
		t.Errorf("told: %+v", m)
	}
	if m.RekeyTime != "14400s" || child.RekeyTime != "3600s" || !slices.Equal(m.Proposals, DefaultIKEProposals) || !slices.Equal(child.ESPProposals, DefaultESPProposals) {
		t.Errorf("defaults: %+v", m)
	}
	if !slices.Equal(child.LocalTS, []string{"0.0.0.0/0"}) || !slices.Equal(m.RemoteAddrs, []string{"2001:db8::2", "::/0"}) {
		t.Errorf("families: %v, %v", child.LocalTS, m.RemoteAddrs)
	}
	// z is behind a, so it waits to be asked, and asks nobody by itself.
	if child.StartAction != "none" || child.DPDAction != "none" {
		t.Errorf("the end that does not lead begins: %+v", child)
	}
}

func TestNamesOfOthersAreNotOurs(t *testing.T) {
	for name, want := range map[string]string{
		"sluice:fra1:a": "fra1 a", "sluice:fra1": "", "fra1:a": "", "sluice::a": "", "sluice:fra1:": "", "sluice:a:b:c": "", "": "", "office": "",
	} {
		tunnel, peer, ok := splitName(name)
		if got := strings.TrimSpace(tunnel + " " + peer); ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q, %v", name, got, ok)
		}
	}
}

func TestASecretsIDTellsWhoseItIsAndNothingOfIt(t *testing.T) {
	file := filepath.Join(t.TempDir(), "with:colon.psk")
	if err := keys.GeneratePSK(file); err != nil {
		t.Fatal(err)
	}
	key, err := keys.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	id := secretID("fra1", "a", file, key)
	held, ok := parseSecretID(id)
	if !ok || held != (secret{id, "sluice:fra1:a", secretDigest(key), file}) {
		t.Errorf("%s: %+v, %v", id, held, ok)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(id, strings.TrimSpace(string(text))[:6]) {
		t.Errorf("%s shows the key", id)
	}
	if fileOf([]secret{held}) != file || fileOf(nil) != UnknownKey || fileOf([]secret{held, held}) != UnknownKey {
		t.Error("the file of a key is not found, or found where there is none")
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := keys.GeneratePSK(file); err != nil {
		t.Fatal(err)
	}
	if got := fileOf([]secret{held}); got != UnknownKey {
		t.Errorf("another key in the file goes unnoticed: %s", got)
	}
	for _, foreign := range []string{"", "office", "sluice:fra1:a", "other:a:b:c:d"} {
		if _, ok := parseSecretID(foreign); ok {
			t.Errorf("%q is taken for ours", foreign)
		}
	}
}
