package slots

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// An image is signed by Ed25519ph (RFC 8032 section 5.1): over the SHA-512 of the file, so that 80 MB need not be in memory. FILE.sig
// is one line: the scheme, the key's id, the signature in base64. Keys are PEM as `openssl genpkey -algorithm ed25519` writes them.
const scheme = "ed25519ph"

// signing has a context, which keeps a signature of an image from being one of something else.
var signing = &ed25519.Options{Hash: crypto.SHA512, Context: "sluice image"}

// maxSignature bounds FILE.sig, and maxKey a key's file.
const (
	maxSignature = 1 << 10
	maxKey       = 16 << 10
)

// ErrUnsigned: the file has no signature.
var ErrUnsigned = errors.New("not signed")

// keyID tells keys apart in messages.
func keyID(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:8])
}

// updateKey makes a key of Ed25519.
func updateKey() (id string, secret, shown []byte, err error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", nil, nil, err
	}
	if secret, err = x509.MarshalPKCS8PrivateKey(private); err != nil {
		return "", nil, nil, err
	}
	shown, err = x509.MarshalPKIXPublicKey(public)
	return keyID(public), secret, shown, err
}

// GenerateKey makes what signs an image: FILE, 0600, with FILE.pub for the nodes, and FILE.uefi.key with FILE.uefi.crt for their firmware.
// It overwrites none of them, and returns the id of the first.
func GenerateKey(file string) (id string, err error) {
	id, secret, shown, err := updateKey()
	if err != nil {
		return "", err
	}
	firmware, certificate, err := firmwareKey()
	if err != nil {
		return "", err
	}
	var made []string
	for _, part := range []struct {
		end, kind string
		der       []byte
		mode      os.FileMode
	}{
		{"", "PRIVATE KEY", secret, 0o600}, {".pub", "PUBLIC KEY", shown, 0o644},
		{".uefi.key", "PRIVATE KEY", firmware, 0o600}, {".uefi.crt", "CERTIFICATE", certificate, 0o644},
	} {
		if err := writeNew(file+part.end, part.kind, part.der, part.mode); err != nil {
			for _, one := range made {
				err = errors.Join(err, os.Remove(one))
			}
			return "", err
		}
		made = append(made, file+part.end)
	}
	return id, nil
}

func writeNew(path, kind string, der []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	err = pem.Encode(f, &pem.Block{Type: kind, Bytes: der})
	return errors.Join(err, f.Sync(), f.Close())
}

// Sign writes FILE.sig and returns the key's id.
func Sign(keyFile, file string) (id string, err error) {
	der, err := readPEM(keyFile, "PRIVATE KEY")
	if err != nil {
		return "", err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	private, ok := parsed.(ed25519.PrivateKey)
	if err != nil || !ok {
		return "", fmt.Errorf("%s is no Ed25519 private key; make one: sluice image keygen FILE", keyFile)
	}
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	digest := sha512.New()
	if _, err := io.Copy(digest, f); err != nil {
		return "", err
	}
	signature, err := private.Sign(nil, digest.Sum(nil), signing)
	if err != nil {
		return "", err
	}
	id = keyID(private.Public().(ed25519.PublicKey))
	line := fmt.Sprintf("%s %s %s\n", scheme, id, base64.StdEncoding.EncodeToString(signature))
	return id, os.WriteFile(file+".sig", []byte(line), 0o644)
}

// readPEM returns one block; a message never quotes the file.
func readPEM(path, kind string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxKey))
	if err != nil {
		return nil, err
	}
	if block, _ := pem.Decode(data); block != nil && block.Type == kind {
		return block.Bytes, nil
	}
	return nil, fmt.Errorf("%s has no PEM block %q", path, kind)
}

// readKeys reads the public keys that the patterns name. One that cannot be read is an error: without it a good image would be
// called forged.
func readKeys(patterns []string) (out []ed25519.PublicKey, err error) {
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			der, err := readPEM(file, "PUBLIC KEY")
			if err != nil {
				return nil, err
			}
			parsed, err := x509.ParsePKIXPublicKey(der)
			key, ok := parsed.(ed25519.PublicKey)
			if err != nil || !ok {
				return nil, fmt.Errorf("%s is no Ed25519 public key", file)
			}
			out = append(out, key)
		}
	}
	return out, nil
}

// verify says whether a signature is of a digest (SHA-512) by one of the keys, and by which.
func verify(keys []ed25519.PublicKey, digest []byte, line string) (id string, err error) {
	words := strings.Fields(line)
	if len(words) != 3 || words[0] != scheme {
		return "", fmt.Errorf("its signature is not understood: one line is wanted, %s KEY SIGNATURE, as `sluice image sign` writes it", scheme)
	}
	signature, err := base64.StdEncoding.DecodeString(words[2])
	if err != nil || len(signature) != ed25519.SignatureSize {
		return "", errors.New("its signature is not understood: its last word is no base64 of 64 bytes")
	}
	i := slices.IndexFunc(keys, func(k ed25519.PublicKey) bool { return keyID(k) == words[1] })
	if i < 0 {
		return "", fmt.Errorf("it is signed by key %s, which this machine does not trust", words[1])
	}
	if ed25519.VerifyWithOptions(keys[i], digest, signature, signing) != nil {
		return "", errors.New("its signature does not fit: the file was changed, or cut off, after it was signed")
	}
	return words[1], nil
}
