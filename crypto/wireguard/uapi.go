package wireguard

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"sluice/crypto/path"
)

// formatUAPI writes cfg in WireGuard's cross-platform configuration protocol: key=value lines, keys in hex, a peer's
// lines after its public_key, and update_only before anything else of a peer.
func formatUAPI(cfg wgtypes.Config) string {
	var b strings.Builder
	line := func(key string, value any) { fmt.Fprintf(&b, "%s=%v\n", key, value) }
	if cfg.PrivateKey != nil {
		line("private_key", hexKey(*cfg.PrivateKey))
	}
	if cfg.ListenPort != nil {
		line("listen_port", *cfg.ListenPort)
	}
	if cfg.FirewallMark != nil {
		line("fwmark", *cfg.FirewallMark)
	}
	for _, p := range cfg.Peers {
		line("public_key", hexKey(p.PublicKey))
		if p.UpdateOnly {
			line("update_only", true)
		}
		if p.Remove {
			line("remove", true)
			continue
		}
		if p.PresharedKey != nil {
			line("preshared_key", hexKey(*p.PresharedKey))
		}
		if p.Endpoint != nil {
			line("endpoint", p.Endpoint)
		}
		if p.PersistentKeepaliveInterval != nil {
			line("persistent_keepalive_interval", int(p.PersistentKeepaliveInterval.Seconds()))
		}
		for _, ip := range p.AllowedIPs {
			line("allowed_ip", ip.String())
		}
	}
	return b.String()
}

// errUAPI does not quote the line it stands for: it may hold a key.
var errUAPI = errors.New("the device's answer cannot be read")

// parseUAPI reads what a device says of itself, which is not its own public key. Unknown keys are skipped, as the protocol demands.
func parseUAPI(name, text string) (*wgtypes.Device, error) {
	dev := &wgtypes.Device{Name: name, Type: wgtypes.Userspace}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if !ok {
			return nil, fmt.Errorf("WireGuard device %s: %w", name, errUAPI)
		}
		var err error
		if key == "public_key" {
			dev.Peers = append(dev.Peers, wgtypes.Peer{})
			err = parseKey(value, &dev.Peers[len(dev.Peers)-1].PublicKey)
		} else if n := len(dev.Peers); n > 0 {
			err = parsePeerLine(&dev.Peers[n-1], key, value)
		} else {
			err = parseDeviceLine(dev, key, value)
		}
		if err != nil {
			return nil, fmt.Errorf("WireGuard device %s, %s: %w", name, key, errUAPI)
		}
	}
	return dev, nil
}

func parseDeviceLine(dev *wgtypes.Device, key, value string) (err error) {
	switch key {
	case "private_key":
		err = parseKey(value, &dev.PrivateKey)
	case "listen_port":
		dev.ListenPort, err = strconv.Atoi(value)
	case "fwmark":
		dev.FirewallMark, err = strconv.Atoi(value)
	}
	return err
}

func parsePeerLine(p *wgtypes.Peer, key, value string) (err error) {
	switch key {
	case "preshared_key":
		return parseKey(value, &p.PresharedKey)
	case "endpoint":
		var ap netip.AddrPort
		ap, err = netip.ParseAddrPort(value)
		p.Endpoint = net.UDPAddrFromAddrPort(ap)
		return err
	case "allowed_ip":
		var prefix netip.Prefix
		if prefix, err = netip.ParsePrefix(value); err == nil {
			p.AllowedIPs = append(p.AllowedIPs, path.IPNet(prefix))
		}
		return err
	}
	return parsePeerNumber(p, key, value)
}

func parsePeerNumber(p *wgtypes.Peer, key, value string) error {
	n, err := strconv.ParseInt(value, 10, 64)
	switch key {
	case "persistent_keepalive_interval":
		p.PersistentKeepaliveInterval = time.Duration(n) * time.Second
	case "rx_bytes":
		p.ReceiveBytes = n
	case "tx_bytes":
		p.TransmitBytes = n
	case "last_handshake_time_sec":
		// The nanoseconds follow in a line of their own. Zero seconds mean never.
		if n != 0 {
			p.LastHandshakeTime = time.Unix(n, 0)
		}
	case "last_handshake_time_nsec":
		if !p.LastHandshakeTime.IsZero() {
			p.LastHandshakeTime = p.LastHandshakeTime.Add(time.Duration(n))
		}
	default:
		return nil
	}
	return err
}

func hexKey(k wgtypes.Key) string { return hex.EncodeToString(k[:]) }

func parseKey(value string, into *wgtypes.Key) error {
	raw, err := hex.DecodeString(value)
	if err != nil {
		return err
	}
	*into, err = wgtypes.NewKey(raw)
	return err
}
