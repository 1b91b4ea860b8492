package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func certificate(t *testing.T, change func(*x509.Certificate), key crypto.Signer) *x509.Certificate {
	t.Helper()
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(1e9, 0), NotAfter: time.Unix(2e9, 0), Subject: pkix.Name{CommonName: "edge-1"}}
	change(c)
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return c
}

func ecKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func pemFile(t *testing.T, mode os.FileMode, kindsAndDERs ...any) string {
	t.Helper()
	var text []byte
	for i := 0; i < len(kindsAndDERs); i += 2 {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: kindsAndDERs[i].(string), Bytes: kindsAndDERs[i+1].([]byte)})...)
	}
	file := filepath.Join(t.TempDir(), "file.pem")
	if err := os.WriteFile(file, text, mode); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestASignerIsReadInEveryFormAndFitsItsCertificate(t *testing.T) {
	ec := ecKey(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(rsaKey)
	if err != nil {
		t.Fatal(err)
	}
	ofEC, ofRSA := certificate(t, func(*x509.Certificate) {}, ec), certificate(t, func(*x509.Certificate) {}, rsaKey)
	for _, c := range []struct {
		file       string
		cert, none *x509.Certificate
	}{
		{pemFile(t, 0o600, "EC PARAMETERS", []byte{6, 1, 1}, "EC PRIVATE KEY", sec1), ofEC, ofRSA},
		{pemFile(t, 0o600, "PRIVATE KEY", pkcs8), ofRSA, ofEC},
		{pemFile(t, 0o600, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey)), ofRSA, ofEC},
	} {
		s, err := LoadSigner(c.file)
		if err != nil {
			t.Fatal(err)
		}
		if s.Fits(c.cert) != nil || !errors.Is(s.Fits(c.none), ErrOtherKey) {
			t.Errorf("fits its own: %v, another's: %v", s.Fits(c.cert), s.Fits(c.none))
		}
		var inside any = struct{ s Signer }{s} // fmt calls no methods of what is in an unexported field
		shown := fmt.Sprintf("%v %+v %#v %s %x %d", s, s, s, inside, s, []Signer{s})
		if strings.Contains(shown, hex.EncodeToString(s.PKCS8()[40:60])) || strings.Count(shown, redacted) < 5 {
			t.Errorf("printed as %s", shown)
		}
	}
}

func TestAFileThatIsNoSignerIsRefused(t *testing.T) {
	ec := ecKey(t)
	sec1, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		file string
		is   error
		says string
	}{
		"missing":   {"/none.key", fs.ErrNotExist, "/none.key"},
		"open":      {pemFile(t, 0o644, "EC PRIVATE KEY", sec1), ErrExposed, "chmod 600"},
		"encrypted": {pemFile(t, 0o600, "ENCRYPTED PRIVATE KEY", sec1), ErrNoSigner, "openssl pkey"},
		"damaged":   {pemFile(t, 0o600, "EC PRIVATE KEY", sec1[:40]), ErrNoSigner, "damaged"},
		"two":       {pemFile(t, 0o600, "EC PRIVATE KEY", sec1, "EC PRIVATE KEY", sec1), ErrNoSigner, "2 private keys"},
		"none":      {pemFile(t, 0o600), ErrNoSigner, "0 private keys"},
		"short":     {pemFile(t, 0o600, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(short)), ErrNoSigner, "2048"},
	} {
		_, err := LoadSigner(c.file)
		if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), c.file) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestACertificateBearsItsNamesAndItsWholeSubject(t *testing.T) {
	c := certificate(t, func(c *x509.Certificate) {
		c.Subject = pkix.Name{Country: []string{"DE"}, Organization: []string{"Example"}, CommonName: "edge-1"}
		c.DNSNames, c.EmailAddresses = []string{"edge-1.example.net"}, []string{"noc@example.net"}
		c.IPAddresses = []net.IP{net.ParseIP("198.18.0.2"), net.ParseIP("2001:db8::2")}
	}, ecKey(t))
	want := []string{"edge-1.example.net", "198.18.0.2", "2001:db8::2", "noc@example.net", "C=DE, O=Example, CN=edge-1"}
	if got := Identities(c); !slices.Equal(got, want) {
		t.Errorf("identities %q", got)
	}
	for id, yes := range map[string]bool{"EDGE-1.example.net": true, "198.18.0.2": true, "C=DE, O=Example, CN=edge-1": true, "edge-1": false, "CN=edge-1": false} {
		if Bears(c, id) != yes {
			t.Errorf("%s: %v", id, !yes)
		}
	}
}

func TestCertificatesOfAFileAreWhatTheyAreFor(t *testing.T) {
	key := ecKey(t)
	ca := func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }
	root, own := certificate(t, ca, key), certificate(t, func(*x509.Certificate) {}, key)
	if list, err := ReadCAs(pemFile(t, 0o644, "CERTIFICATE", root.Raw)); err != nil || len(list) != 1 {
		t.Errorf("a CA: %v", err)
	}
	if chain, err := ReadChain(pemFile(t, 0o644, "CERTIFICATE", own.Raw, "CERTIFICATE", root.Raw)); err != nil || len(chain) != 2 || chain[0].IsCA {
		t.Errorf("a chain: %v", err)
	}
	for says, err := range map[string]error{
		"CA:TRUE is not in it":      second(ReadCAs(pemFile(t, 0o644, "CERTIFICATE", own.Raw))),
		"has to come first":         second(ReadChain(pemFile(t, 0o644, "CERTIFICATE", root.Raw, "CERTIFICATE", own.Raw))),
		"a private key as well":     second(ReadChain(pemFile(t, 0o600, "CERTIFICATE", own.Raw, "PRIVATE KEY", own.Raw))),
		"certificate 2 of it":       second(ReadChain(pemFile(t, 0o644, "CERTIFICATE", own.Raw, "CERTIFICATE", own.Raw[:50]))),
		"no certificates in PEM":    second(ReadCAs(pemFile(t, 0o644))),
		"/none.pem":                 second(ReadCAs("/none.pem")),
		"is not a regular file: no": second(ReadCAs(t.TempDir())),
	} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestTheEndOfACertificateIsToldInTime(t *testing.T) {
	c := certificate(t, func(c *x509.Certificate) {}, ecKey(t))
	short := certificate(t, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Unix(1e9, 0), time.Unix(1e9+9*3600, 0) }, ecKey(t))
	for _, x := range []struct {
		c       *x509.Certificate
		at      int64
		says    string
		expired bool
	}{
		{c, 1e9 - 1, "not valid before", true}, {c, 1e9 + 1, "", false}, {c, 2e9 - 31*86400, "", false},
		{c, 2e9 - 29*86400, "expires on", false}, {c, 2e9 + 1, "has expired", true},
		{short, 1e9 + 5*3600, "", false}, {short, 1e9 + 7*3600, "expires on", false},
	} {
		text, expired := Period(x.c, time.Unix(x.at, 0))
		if !strings.HasPrefix(text, "is "+x.says) && !strings.HasPrefix(text, x.says) || (text == "") != (x.says == "") || expired != x.expired {
			t.Errorf("at %d: %q, %v", x.at, text, expired)
		}
	}
}
