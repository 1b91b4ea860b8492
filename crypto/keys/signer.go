package keys

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
)

// ErrNoSigner is returned for a file that does not hold one private key that a certificate may be for.
var ErrNoSigner = errors.New("no private key of a certificate: want RSA of 2048 bits or more, ECDSA (P-256, P-384, P-521) or Ed25519 in PEM")

// ErrOtherKey says that a certificate is for another private key.
var ErrOtherKey = errors.New("the private key does not belong to the certificate")

// Signer is the private key of a certificate. It leaves this package only through PKCS8, and never by printing.
type Signer struct {
	hidden
	reveal func() []byte
	public crypto.PublicKey
}

// LoadSigner reads the private key in path, under the rules of Load.
func LoadSigner(path string) (Signer, error) {
	text, err := readSecret(path, maxPEM)
	if errors.Is(err, fs.ErrNotExist) {
		return Signer{}, fmt.Errorf("key file %s: %w", path, fs.ErrNotExist) // no key of ours could take its place
	}
	if err != nil {
		return Signer{}, err
	}
	s, err := parseSigner(text)
	if err != nil {
		return Signer{}, fmt.Errorf("key file %s: %w", path, err)
	}
	return s, nil
}

// parseSigner drops the causes that crypto/x509 gives: nobody promises what they print.
func parseSigner(text []byte) (Signer, error) {
	if len(text) > maxPEM {
		return Signer{}, fmt.Errorf("the file is too long: %w", ErrNoSigner)
	}
	var found []any
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		var key any
		var err error
		switch {
		case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["Proc-Type"] != "":
			return Signer{}, fmt.Errorf("the private key is encrypted, and nobody is there to type its passphrase when the box boots; `openssl pkey -in FILE` writes it in the clear: %w", ErrNoSigner)
		case block.Type == "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case block.Type == "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case block.Type == "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		default:
			continue // EC PARAMETERS, or the certificate
		}
		if err != nil {
			return Signer{}, fmt.Errorf("its private key is damaged, or of no kind that is known: %w", ErrNoSigner)
		}
		found = append(found, key)
	}
	if len(found) != 1 {
		return Signer{}, fmt.Errorf("%d private keys are in it: %w", len(found), ErrNoSigner)
	}
	return newSigner(found[0])
}

func newSigner(key any) (Signer, error) {
	good := false
	switch k := key.(type) {
	case *rsa.PrivateKey:
		good = k.N.BitLen() >= 2048
	case *ecdsa.PrivateKey:
		good = k.Curve == elliptic.P256() || k.Curve == elliptic.P384() || k.Curve == elliptic.P521()
	case ed25519.PrivateKey:
		good = true
	}
	signer, ok := key.(crypto.Signer)
	if !good || !ok {
		return Signer{}, ErrNoSigner
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Signer{}, ErrNoSigner
	}
	return Signer{reveal: func() []byte { return der }, public: signer.Public()}, nil
}

// PKCS8 returns a copy of the key in DER (RFC 5958).
func (s Signer) PKCS8() []byte {
	if s.reveal == nil {
		return nil
	}
	return bytes.Clone(s.reveal())
}

// Fits is ErrOtherKey for a certificate that is not for this key.
func (s Signer) Fits(c *x509.Certificate) error {
	if p, ok := s.public.(interface{ Equal(crypto.PublicKey) bool }); !ok || !p.Equal(c.PublicKey) {
		return fmt.Errorf("%w %s", ErrOtherKey, Subject(c))
	}
	return nil
}
