package keys

import "errors"

// Key is a secret: a private or preshared key. No way of printing, formatting, logging or marshalling shows it. The
// zero Key holds nothing.
//
// The bytes are held by a closure because fmt does not call the methods of a Key that sits in an unexported field. It
// follows a pointer there (on a wrong verb, such as %s of a struct); of a func it has only the address to print.
type Key struct {
	hidden
	reveal func() [Size]byte
}

func newKey(secret [Size]byte) Key {
	return Key{reveal: func() [Size]byte { return secret }}
}

// Bytes returns a copy of the secret; the zero Key gives zeros.
func (k Key) Bytes() [Size]byte {
	if k.reveal == nil {
		return [Size]byte{}
	}
	return k.reveal()
}

// PublicKey returns the base64 public key, taking the secret as a Curve25519 private key.
func (k Key) PublicKey() (string, error) {
	if k.reveal == nil {
		return "", errors.New("derive the public key: the key is empty")
	}
	return publicKey(k.reveal())
}
