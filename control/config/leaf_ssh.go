package config

import (
	"crypto/rsa"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

// sshKey is one line of authorized_keys(5): options, a public key, a comment.
type sshKey struct {
	line string // as written, without blanks around it
	wire string // the key itself
}

const minRSA = 2048 // bits; sshd itself takes 1024

func (k *sshKey) takes() takes { return text }
func (k *sshKey) describe() schema {
	return schema{"description": "public key of SSH, as a line of authorized_keys", "minLength": 1}
}

func (k *sshKey) parse(s string) problem {
	k.line = strings.TrimSpace(s)
	switch {
	case strings.Contains(s, "PRIVATE KEY"):
		return bad("this is a private key, and it has been seen").or("make a new pair, and write the line of the .pub file")
	case strings.ContainsAny(k.line, "\n\r\x00"):
		return bad("more than one line").or("write each key as an item of its own")
	}
	key, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(k.line))
	if err != nil || len(rest) > 0 {
		return bad("not a public key of SSH").or("write the line of the .pub file: ssh-ed25519 AAAA... name")
	}
	k.wire = string(key.Marshal())
	kinds := []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256, ssh.KeyAlgoRSA}
	if !slices.Contains(kinds, key.Type()) {
		return bad("keys of type %s are not taken", key.Type()).or("make one: ssh-keygen -t ed25519")
	}
	if c, ok := key.(ssh.CryptoPublicKey); ok {
		if r, ok := c.CryptoPublicKey().(*rsa.PublicKey); ok && r.N.BitLen() < minRSA {
			return bad("an RSA key of %d bits is too short", r.N.BitLen()).or("make one: ssh-keygen -t ed25519")
		}
	}
	return problem{}
}
