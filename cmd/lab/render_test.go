package lab

import (
	"fmt"
	"strings"
	"testing"

	"sluice/configs"
)

func TestRenderReplacesEachTextExactlyOnce(t *testing.T) {
	got, err := render("a: OLD, b: KEEP, c: PATH", "OLD", "PATH2", "PATH", "new")
	if err != nil || got != "a: PATH2, b: KEEP, c: new" {
		t.Errorf("%q, %v", got, err)
	}
	for text, n := range map[string]int{"nothing here": 0, "OLD and OLD": 2} {
		if _, err := render(text, "OLD", "new"); err == nil || !strings.Contains(err.Error(), fmt.Sprintf(`"OLD" is there %d times`, n)) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestTheFilesSayWhatTheSiteIs keeps the addresses of the site and of its two files together.
func TestTheFilesSayWhatTheSiteIs(t *testing.T) {
	gateway := []string{
		Gateway4.String() + "/30", Gateway6.String() + "/64", "address: " + ToRAddress4.String(), "address: " + ToRAddress6.String(),
		fmt.Sprintf("{name: attackers, prefixes: [%s, %q]}", Attackers4, Attackers6),
		fmt.Sprintf("{name: resolvers, prefixes: [%s, %q]}", Resolver4, Resolver6),
		fmt.Sprintf("{name: mirrors, prefixes: [%s, %q]}", Client4, Client6),
		fmt.Sprintf("local: {address: %s, port: %d}", Gateway4, TunnelPort),
		fmt.Sprintf("asn: %d\n", gatewayASN), fmt.Sprintf("asn: %d\n", torASN),
	}
	for i := range Web4 {
		gateway = append(gateway, fmt.Sprintf("addresses: [%s, %q]", Web4[i], Web6[i]))
	}
	for _, p := range advertised {
		gateway = append(gateway, strings.TrimSuffix(strings.TrimSuffix(p, "/32"), "/128"))
	}
	peer := []string{
		fmt.Sprintf("addresses: [%s/32, \"%s/128\"]", Inner4, Inner6), fmt.Sprintf("%s:%d", Gateway4, TunnelPort),
	}
	for _, file := range []struct {
		name, text string
		says       []string
	}{{"lab-gateway.yaml", configs.LabGateway, gateway}, {"lab-peer.yaml", configs.LabPeer, peer}} {
		for _, want := range file.says {
			if !strings.Contains(file.text, want) {
				t.Errorf("%s does not say %q", file.name, want)
			}
		}
	}
}
