package wireguard

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

func TestFormatUAPIWritesOnlyWhatIsSet(t *testing.T) {
	hex := func(b string) string { return strings.Repeat(b, 32) }
	key := func(b byte) (k wgtypes.Key) {
		for i := range k {
			k[i] = b
		}
		return k
	}
	port, mark, every, private, psk := 51820, 81, 25*time.Second, key(0xaa), key(0xbb)
	cfg := wgtypes.Config{PrivateKey: &private, ListenPort: &port, FirewallMark: &mark, Peers: []wgtypes.PeerConfig{
		{PublicKey: key(1), UpdateOnly: true, PresharedKey: &psk, PersistentKeepaliveInterval: &every,
			Endpoint: &net.UDPAddr{IP: net.ParseIP("2001:db8::1"), Port: 9}, AllowedIPs: ipNets(list("10.0.0.0/8", "fd00::/8"))},
		{PublicKey: key(2), UpdateOnly: true, Remove: true},
		{PublicKey: key(3)},
	}}
	want := "private_key=" + hex("aa") + "\nlisten_port=51820\nfwmark=81\n" +
		"public_key=" + hex("01") + "\nupdate_only=true\npreshared_key=" + hex("bb") + "\nendpoint=[2001:db8::1]:9\n" +
		"persistent_keepalive_interval=25\nallowed_ip=10.0.0.0/8\nallowed_ip=fd00::/8\n" +
		"public_key=" + hex("02") + "\nupdate_only=true\nremove=true\n" +
		"public_key=" + hex("03") + "\n"
	if diff := cmp.Diff(want, formatUAPI(cfg)); diff != "" {
		t.Error(diff)
	}
	if got := formatUAPI(wgtypes.Config{}); got != "" {
		t.Errorf("an empty configuration writes %q", got)
	}
}

func TestParseUAPIRefusesNonsenseWithoutQuotingIt(t *testing.T) {
	secret := strings.Repeat("ab", 31)
	for _, text := range []string{
		"private_key=" + secret, "private_key=" + secret + "zz", "private_key " + secret + "cd", "listen_port=" + secret,
		"public_key=" + secret, "public_key=" + secret + "cd\npreshared_key=" + secret, "public_key=" + secret + "cd\nallowed_ip=" + secret,
		"public_key=" + secret + "cd\nendpoint=" + secret, "public_key=" + secret + "cd\nrx_bytes=" + secret,
	} {
		_, err := parseUAPI("fra1", text)
		if err == nil {
			t.Errorf("%q is taken", text)
		} else if strings.Contains(err.Error(), secret[:8]) {
			t.Errorf("the error quotes: %v", err)
		}
	}
	if _, err := parseUAPI("fra1", "some_future_key=1\n"); err != nil {
		t.Errorf("an unknown key: %v", err)
	}
}
