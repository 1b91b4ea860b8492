package ike

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/strongswan/govici/vici"

	"sluice/crypto/keys"
)

// proof is what proves an end to the other one, as its files hold it now: a preshared key, or a certificate.
type proof struct {
	shared keys.Key

	chain  []*x509.Certificate // the own one first
	cas    []*x509.Certificate
	signer keys.Signer
}

// proofOf reads the files of a connection. Errors name a file, and never what is in it.
func proofOf(conn Conn) (p proof, err error) {
	if conn.Certificates == nil {
		p.shared, err = keys.Load(conn.SecretFile)
	} else {
		p, err = certified(*conn.Certificates, conn.LocalID)
	}
	if err != nil {
		return proof{}, fmt.Errorf("tunnel %s, peer %s: %w", conn.Tunnel, conn.Peer, err)
	}
	return p, nil
}

// certified is all or nothing: a certificate that was exchanged, and whose key was not yet, is none.
func certified(f Certificates, id string) (p proof, err error) {
	if p.chain, err = keys.ReadChain(f.Certificate); err != nil {
		return proof{}, err
	}
	if p.signer, err = keys.LoadSigner(f.PrivateKey); err != nil {
		return proof{}, err
	}
	if err := p.signer.Fits(p.chain[0]); err != nil {
		return proof{}, fmt.Errorf("%s and %s: %w", f.Certificate, f.PrivateKey, err)
	}
	if !keys.Bears(p.chain[0], id) {
		// charon would call itself by the subject instead, and the other end would not know it.
		return proof{}, fmt.Errorf("certificate file %s is not for id %s: write ipsec.id as one of: %s", f.Certificate, id, strings.Join(keys.Identities(p.chain[0]), "; "))
	}
	for _, file := range f.CAs {
		cas, err := keys.ReadCAs(file)
		if err != nil {
			return proof{}, err
		}
		p.cas = append(p.cas, cas...)
	}
	return p, nil
}

func (p proof) leaf() []string { return ders(p.chain[:1]) }

func (p proof) anchors() []string { return ders(p.cas) }

func ders(list []*x509.Certificate) []string {
	out := make([]string, len(list))
	for i, c := range list {
		out[i] = string(c.Raw)
	}
	return out
}

// keyID is charon's name of the private key; "" for a preshared key.
func (p proof) keyID() string {
	if len(p.chain) == 0 {
		return ""
	}
	return keys.KeyID(p.chain[0])
}

// childName is the digest of the connection and, where certificates are, that of them and the name of the private key: charon gives
// names alone away. So other certificates are another child, which takes the place of the former one as any change does.
func (c Conn) childName(p proof) string {
	if c.Certificates == nil {
		return c.Digest()
	}
	sum := sha256.New()
	for _, x := range append(p.chain[:len(p.chain):len(p.chain)], p.cas...) {
		sum.Write(x.Raw)
	}
	return c.Digest() + "-" + hex.EncodeToString(sum.Sum(nil)[:8]) + "-" + p.keyID()
}

// splitChild undoes childName.
func splitChild(name string) (digest, keyID string) {
	digest, rest, _ := strings.Cut(name, "-")
	_, keyID, _ = strings.Cut(rest, "-")
	return digest, keyID
}

// certMessage is a certificate of load-cert, keyMessage a private key of load-key; data is DER.
type (
	certMessage struct {
		Type string `vici:"type"`
		Flag string `vici:"flag"`
		Data string `vici:"data"`
	}
	keyMessage struct {
		Type string `vici:"type"`
		Data string `vici:"data"`
	}
)

func (p proof) loadKey() (*vici.Message, error) {
	return vici.MarshalMessage(keyMessage{"any", string(p.signer.PKCS8())})
}

// loadBetween are the CAs between the own certificate and its root, which the other end may lack. To charon they are no anchors:
// those sign themselves.
func (p proof) loadBetween() (list []*vici.Message, err error) {
	for _, c := range p.chain[1:] {
		m, err := vici.MarshalMessage(certMessage{"X509", "CA", string(c.Raw)})
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	return list, nil
}
