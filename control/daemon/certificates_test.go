package daemon

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/control/config"
	"sluice/control/host"
	"sluice/crypto/keys"
)

// certify writes a certificate for a name that signs itself, NAME.pem, and its key, NAME.key.
func certify(t *testing.T, dir, name string, until time.Time) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: until.Add(-1000 * 24 * time.Hour), NotAfter: until,
		Subject: pkix.Name{Organization: []string{"Example"}, CommonName: name}, DNSNames: []string{name}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "EC PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// certified is a tunnel of five lines whose certificate is on the last but one.
func certified(t *testing.T, dir, id, cert, key, ca string) *config.Config {
	t.Helper()
	return parsed(t, fmt.Sprintf(`tunnels:
  - {name: a, type: ipsec, local: {address: 198.18.0.2}, ipsec: {keying: ike, id: %q, auth: {method: certificate,
      private_key_file: %s/%s, ca_files: [%s/%s],
      certificate_file: %s/%s}},
      peers: [{name: p, endpoints: [198.51.100.7], prefixes: [10.1.0.0/16]}]}
`, id, dir, key, dir, ca, dir, cert))
}

func TestFaultsOfCertificatesStandWhereTheFileNamesThem(t *testing.T) {
	dir := t.TempDir()
	far := time.Now().Add(400 * 24 * time.Hour)
	for _, name := range []string{"edge-1", "other", "ca"} {
		certify(t, dir, name, far)
	}
	if err := os.Chmod(filepath.Join(dir, "ca.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		cfg  *config.Config
		line int
		says string
	}{
		"good":          {certified(t, dir, "edge-1", "edge-1.pem", "edge-1.key", "ca.pem"), 0, ""},
		"a subject":     {certified(t, dir, "o=Example,cn=edge-1", "edge-1.pem", "edge-1.key", "ca.pem"), 0, ""},
		"another id":    {certified(t, dir, "edge-2", "edge-1.pem", "edge-1.key", "ca.pem"), 4, "tunnels[0].ipsec.auth.certificate_file: the certificate is not for this node's id edge-2: write ipsec.id as one of: edge-1; O=Example, CN=edge-1"},
		"another key":   {certified(t, dir, "edge-1", "edge-1.pem", "other.key", "ca.pem"), 3, "tunnels[0].ipsec.auth.private_key_file: the private key does not belong to the certificate O=Example, CN=edge-1"},
		"an open key":   {certified(t, dir, "edge-1", "edge-1.pem", "ca.key", "ca.pem"), 3, "mode 0644; run: chmod 600"},
		"no CA":         {certified(t, dir, "edge-1", "edge-1.pem", "edge-1.key", "none.pem"), 3, "tunnels[0].ipsec.auth.ca_files[0]: certificate file " + dir + "/none.pem: it does not exist"},
		"a key for one": {certified(t, dir, "edge-1", "other.key", "edge-1.key", "ca.pem"), 4, "holds a private key as well"},
	} {
		switch _, list := readKeys(c.cfg); {
		case c.says == "" && len(list) == 0:
		case c.says == "" || len(list) == 0 || list[0].Pos.Line != c.line || !strings.Contains(list[0].Error(), c.says):
			t.Errorf("%s: %v, want line %d: %s", name, list, c.line, c.says)
		}
	}
}

func TestAnExpiredCertificateIsWarnedOfAndShown(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	certify(t, dir, "edge-1", now.Add(-time.Hour))
	certify(t, dir, "ca", now.Add(10*24*time.Hour))
	cfg := certified(t, dir, "edge-1", "edge-1.pem", "edge-1.key", "ca.pem")
	if _, faults := readKeys(cfg); len(faults) > 0 {
		t.Fatalf("an expired certificate is refused: %v", faults) // a clock may be wrong, and what runs goes on
	}
	warnings := strings.Join(certificateWarnings(cfg, now), "\n")
	for _, want := range []string{"tunnel a: the certificate O=Example, CN=edge-1 has expired on ", "tunnel a: the certificate of CA O=Example, CN=ca expires on "} {
		if !strings.Contains(warnings, want) {
			t.Errorf("warnings %q lack %q", warnings, want)
		}
	}
	if f, told := certificateFinding(cfg, now); !told || f.Status != host.StatusWarn || !strings.Contains(f.Detail, "has expired") {
		t.Errorf("the doctor says %+v, %v", f, told)
	}
	shown := shownCertificate(cfg.Tunnels[0], now)
	chain, err := keys.ReadChain(filepath.Join(dir, "edge-1.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if shown.Subject != "O=Example, CN=edge-1" || !shown.NotAfter.Equal(chain[0].NotAfter) || !strings.Contains(shown.Why, "has expired") || shown.CANotAfter.IsZero() {
		t.Errorf("shown %+v", shown)
	}
	certify(t, dir, "edge-1", now.Add(400*24*time.Hour))
	certify(t, dir, "ca", now.Add(400*24*time.Hour))
	if f, _ := certificateFinding(cfg, now); f.Status != host.StatusOK || shownCertificate(cfg.Tunnels[0], now).Why != "" || len(certificateWarnings(cfg, now)) != 0 {
		t.Errorf("good ones: %+v", f)
	}
}
