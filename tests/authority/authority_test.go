package authority

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
)

func TestWhatIsIssuedIsProvedByItsRootAndByNoOther(t *testing.T) {
	dir := t.TempDir()
	root, other := New(t, "root", "ec"), New(t, "other", "ec")
	between := root.Below(t, "between", "rsa")
	for _, kind := range []string{"ec", "rsa", "ed25519"} {
		f := between.Issue(t, dir, "edge", kind, between)
		pair, err := tls.LoadX509KeyPair(f.Certificate, f.PrivateKey) // which holds the one against the other
		if err != nil {
			t.Fatal(err)
		}
		for ca, good := range map[CA]bool{root: true, other: false} {
			o := x509.VerifyOptions{DNSName: "edge", Roots: pool(t, ca.File(t, dir)), Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
			for _, der := range pair.Certificate[1:] {
				c, err := x509.ParseCertificate(der)
				if err != nil {
					t.Fatal(err)
				}
				o.Intermediates.AddCert(c)
			}
			if _, err := pair.Leaf.Verify(o); (err == nil) != good {
				t.Errorf("%s, by %s: %v", kind, ca.cert.Subject, err)
			}
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, "*.new"))
	if err != nil || len(left) != 0 {
		t.Errorf("left: %s, %v", left, err)
	}
}

func pool(t *testing.T, file string) *x509.CertPool {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(text) {
		t.Fatalf("%s holds no certificate", file)
	}
	return p
}
