// Package authority makes certificates for tests.
package authority

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// CA issues certificates.
type CA struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// Certified are the files of a certificate and its key.
type Certified struct{ Certificate, PrivateKey string }

// New makes a CA of its own. A kind of key is ec, rsa or ed25519.
func New(t testing.TB, name, kind string) CA {
	t.Helper()
	return CA{}.Below(t, name, kind)
}

// Below makes a CA below another.
func (a CA) Below(t testing.TB, name, kind string) CA {
	t.Helper()
	key := newSigner(t, kind)
	return CA{a.signs(t, &x509.Certificate{
		Subject: pkix.Name{Organization: []string{"Example"}, CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, key), key}
}

// Issue writes a certificate for id, a name or an address, and its key. Those of between stand behind it; what is there is replaced.
func (a CA) Issue(t testing.TB, dir, id, kind string, between ...CA) Certified {
	t.Helper()
	key := newSigner(t, kind)
	c := &x509.Certificate{Subject: pkix.Name{Organization: []string{"Example"}, CommonName: id}, KeyUsage: x509.KeyUsageDigitalSignature}
	if ip := net.ParseIP(id); ip != nil {
		c.IPAddresses = []net.IP{ip}
	} else {
		c.DNSNames = []string{id}
	}
	chain := [][]byte{a.signs(t, c, key).Raw}
	for _, b := range between {
		chain = append(chain, b.cert.Raw)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	f := Certified{filepath.Join(dir, id+".pem"), filepath.Join(dir, id+".key")}
	write(t, f.Certificate, 0o644, "CERTIFICATE", chain...)
	write(t, f.PrivateKey, 0o600, "PRIVATE KEY", der)
	return f
}

// File writes the CA's own certificate.
func (a CA) File(t testing.TB, dir string) string {
	t.Helper()
	file := filepath.Join(dir, a.cert.Subject.CommonName+".ca")
	write(t, file, 0o644, "CERTIFICATE", a.cert.Raw)
	return file
}

// signs completes a certificate for key; the CA that has none itself has the certificate sign itself.
func (a CA) signs(t testing.TB, c *x509.Certificate, key crypto.Signer) *x509.Certificate {
	t.Helper()
	var err error
	if c.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		t.Fatal(err)
	}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(100*24*time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func newSigner(t testing.TB, kind string) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch kind {
	case "rsa":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// write replaces a file at once: somebody may be reading it.
func write(t testing.TB, file string, mode os.FileMode, kind string, ders ...[]byte) {
	t.Helper()
	var text []byte
	for _, der := range ders {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})...)
	}
	if err := os.WriteFile(file+".new", text, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}
