package keys

import (
	"bytes"
	"crypto/sha1"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"
)

// maxPEM bounds what is read of a file of certificates, or of a private key that signs.
const maxPEM = 256 << 10

// ErrNoCertificate is returned for a file that does not hold what a certificate file must.
var ErrNoCertificate = errors.New("no certificates in PEM")

// ReadChain reads an end's own certificate, with those of the CAs between it and its root behind it.
func ReadChain(path string) ([]*x509.Certificate, error) {
	chain, err := readCertificates(path)
	if err != nil {
		return nil, err
	}
	if chain[0].IsCA && len(chain) > 1 && !chain[1].IsCA {
		return nil, fmt.Errorf("certificate file %s begins with the certificate of a CA: this node's own has to come first", path)
	}
	return chain, nil
}

// ReadCAs reads the certificates of CAs; one of them signs itself at least, for charon trusts no other as an anchor.
func ReadCAs(path string) ([]*x509.Certificate, error) {
	list, err := readCertificates(path)
	if err != nil {
		return nil, err
	}
	root := false
	for _, c := range list {
		if !c.IsCA {
			return nil, fmt.Errorf("certificate file %s: %s is not the certificate of a CA (CA:TRUE is not in it): certificate_file is for this node's own", path, Subject(c))
		}
		root = root || bytes.Equal(c.RawSubject, c.RawIssuer)
	}
	if !root {
		return nil, fmt.Errorf("certificate file %s: no CA in it signs itself, and nothing else is an anchor: add the root that issued %s", path, Subject(list[0]))
	}
	return list, nil
}

func readCertificates(path string) ([]*x509.Certificate, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("certificate file %s: %w", path, fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("certificate file %s cannot be read: %w", path, err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("certificate file %s is not a regular file: %w", path, errors.Join(err, ErrNoCertificate))
	}
	text, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err != nil || len(text) > maxPEM {
		return nil, fmt.Errorf("certificate file %s cannot be read, or has more than %d bytes: %w", path, maxPEM, errors.Join(err, ErrNoCertificate))
	}
	var out []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return nil, fmt.Errorf("certificate file %s holds a private key as well: keep that in a file of its own, of mode 0600", path)
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate file %s: certificate %d of it is damaged: %w", path, len(out)+1, err)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("certificate file %s: %w; of DER `openssl x509 -inform DER -in FILE` makes PEM", path, ErrNoCertificate)
	}
	return out, nil
}

// KeyID is what charon calls the key of a certificate: SHA-1 of the bits of its public key (RFC 5280 section 4.2.1.2).
func KeyID(c *x509.Certificate) string {
	var info struct {
		Algorithm asn1.RawValue
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(c.RawSubjectPublicKeyInfo, &info); err != nil {
		return "" // unreachable: the certificate was parsed
	}
	return fmt.Sprintf("%x", sha1.Sum(info.Key.Bytes))
}

// Bears says whether a certificate is for an identity: an address, a DNS name or user@domain of its subjectAltName, or its whole subject.
// An end that calls itself otherwise is not believed (RFC 7296 section 3.5).
func Bears(c *x509.Certificate, id string) bool {
	for _, name := range Identities(c) {
		if strings.EqualFold(name, id) {
			return true
		}
	}
	return false
}

// Identities are what an end with this certificate may call itself.
func Identities(c *x509.Certificate) []string {
	out := append([]string{}, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		if a, ok := netip.AddrFromSlice(ip); ok {
			out = append(out, a.Unmap().String())
		}
	}
	out = append(out, c.EmailAddresses...)
	if subject := Subject(c); subject != "" {
		out = append(out, subject)
	}
	return out
}

// Subject is the distinguished name in the order of the certificate, as `openssl x509 -subject` has it, such as "O=Example, CN=edge-1".
func Subject(c *x509.Certificate) string { return distinguishedName(c.RawSubject) }

// Issuer is Subject of who has signed.
func Issuer(c *x509.Certificate) string { return distinguishedName(c.RawIssuer) }

// attributes are the types of a distinguished name that have a short name here and in charon (RFC 4514 section 3).
var attributes = map[string]string{
	"2.5.4.3": "CN", "2.5.4.6": "C", "2.5.4.7": "L", "2.5.4.8": "ST", "2.5.4.10": "O", "2.5.4.11": "OU", "0.9.2342.19200300.100.1.25": "DC",
}

func distinguishedName(raw []byte) string {
	var name []asn1.RawValue // of SETs: what pkix makes of it has lost nothing, but turns the order when it prints
	if _, err := asn1.Unmarshal(raw, &name); err != nil {
		return ""
	}
	var parts []string
	for _, set := range name {
		var pairs []struct {
			Type  asn1.ObjectIdentifier
			Value asn1.RawValue
		}
		if _, err := asn1.UnmarshalWithParams(set.FullBytes, &pairs, "set"); err != nil {
			return ""
		}
		for _, p := range pairs {
			short, ok := attributes[p.Type.String()]
			if !ok {
				short = p.Type.String()
			}
			parts = append(parts, short+"="+printable(p.Value.Bytes))
		}
	}
	return strings.Join(parts, ", ")
}

// printable keeps foreign bytes from a terminal.
func printable(text []byte) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, string(text))
}

// Period says what is wrong with a certificate's time, or soon will be; "" for nothing. expired says that it is not valid now.
func Period(c *x509.Certificate, now time.Time) (text string, expired bool) {
	const day = "2006-01-02 15:04 MST"
	left := c.NotAfter.Sub(now)
	switch {
	case now.Before(c.NotBefore):
		return "is not valid before " + c.NotBefore.UTC().Format(day) + " (is this machine's clock right?)", true
	case left < 0:
		return "has expired on " + c.NotAfter.UTC().Format(day), true
	case left < min(soon, c.NotAfter.Sub(c.NotBefore)/3):
		return "expires on " + c.NotAfter.UTC().Format(day), false
	}
	return "", false
}

// soon is how long before its end a certificate is warned of, or a third of its life where that is shorter.
const soon = 30 * 24 * time.Hour
