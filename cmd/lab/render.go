package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sluice/configs"
	"sluice/crypto/keys"
)

// placeholderKey stands in the files of configs/ where the other side's public key belongs.
const placeholderKey = "EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8="

// configure makes the keys of both ends of the tunnel and writes the two configurations.
func (s *Site) configure() error {
	gatewayKey, peerKey := s.keyFile("gateway"), s.keyFile("peer")
	gatewayPublic, err := keys.Generate(gatewayKey)
	if err != nil {
		return err
	}
	peerPublic, err := keys.Generate(peerKey)
	if err != nil {
		return err
	}
	err = renderTo(s.Gateway.File, configs.LabGateway, "/var/lib/sluice/keys/fra1.key", gatewayKey, placeholderKey, peerPublic)
	if err != nil {
		return fmt.Errorf("lab-gateway.yaml: %w", err)
	}
	err = renderTo(s.Peer.File, configs.LabPeer, "/var/lib/sluice/keys/edge-1.key", peerKey, placeholderKey, gatewayPublic)
	if err != nil {
		return fmt.Errorf("lab-peer.yaml: %w", err)
	}
	return nil
}

func (s *Site) keyFile(role string) string { return filepath.Join(s.Dir, role+".key") }

func renderTo(path, text string, oldnew ...string) error {
	text, err := render(text, oldnew...)
	if err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o600)
}

// render replaces texts, given in pairs. Each must be there exactly once: a file that was edited past the lab is an
// error here, and no riddle later.
func render(text string, oldnew ...string) (string, error) {
	for i := 0; i < len(oldnew); i += 2 {
		if n := strings.Count(text, oldnew[i]); n != 1 {
			return "", fmt.Errorf("%q is there %d times, and the lab has to replace it exactly once", oldnew[i], n)
		}
	}
	return strings.NewReplacer(oldnew...).Replace(text), nil
}
