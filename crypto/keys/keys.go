// Package keys makes, stores and reads the secrets of tunnels: Curve25519 private keys and preshared keys, one per
// file, in the base64 form of wg(8). A secret leaves this package only through Key.Bytes, and never by printing.
package keys

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// Size is the length of a private, public or preshared key in bytes.
const Size = 32

// ErrExists is returned when a key file is already there: keys are never overwritten.
var ErrExists = errors.New("key file exists already and is never overwritten")

// ErrExposed is returned for a key file that others than its owner may read or write, or replace.
var ErrExposed = errors.New("key file is open to others than its owner")

// ErrMalformed is returned for a file that does not hold one base64 key of 32 bytes.
var ErrMalformed = errors.New("not a key: want 32 bytes in base64, as `wg genkey` prints them")

// maxFile bounds what is read of a key file: 44 characters, a newline, and some room for stray white space.
const maxFile = 256

// Generate writes a new Curve25519 private key to path with mode 0600 and returns its public key in base64. Missing
// directories are made with mode 0700. The file appears whole or not at all; one that exists is ErrExists.
func Generate(path string) (pub string, err error) {
	secret, err := random()
	if err != nil {
		return "", err
	}
	// Clamped as RFC 7748 section 5 says, so that the file is the same number that `wg genkey` would have stored.
	secret[0] &= 248
	secret[31] = secret[31]&127 | 64
	if pub, err = publicKey(secret); err != nil {
		return "", err
	}
	return pub, store(path, secret)
}

// GeneratePSK writes a new preshared key to path, under the same rules as Generate.
func GeneratePSK(path string) error {
	secret, err := random()
	if err != nil {
		return err
	}
	return store(path, secret)
}

// Load reads the key in path. A symbolic link is followed, and the mode of its target counts: a file with any bit for
// group or others is ErrExposed. Errors never contain a byte of the file.
func Load(path string) (Key, error) {
	text, err := readSecret(path, maxFile)
	if err != nil {
		return Key{}, err
	}
	secret, err := decode(text)
	if err != nil {
		return Key{}, fmt.Errorf("key file %s: %w", path, err)
	}
	return newKey(secret), nil
}

// readSecret reads a file that nobody but its owner may read, one byte more than most at most.
func readSecret(path string, most int64) ([]byte, error) {
	// Nonblocking: opening a pipe that nobody writes to would never return.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, openError(path, err)
	}
	defer f.Close()
	// The mode is asked of the open file, not of the path, so that it belongs to the bytes that are read.
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("key file %s is a %s, not a regular file: %w", path, kind(info.Mode()), ErrMalformed)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%w: %s has mode %04o; run: chmod 600 %s", ErrExposed, path, mode, path)
	}
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	return text, nil
}

// PublicKey returns the base64 public key of the private key stored in path.
func PublicKey(path string) (string, error) {
	k, err := Load(path)
	if err != nil {
		return "", err
	}
	return k.PublicKey()
}

func random() (secret [Size]byte, err error) {
	if _, err := rand.Read(secret[:]); err != nil {
		return secret, fmt.Errorf("random bytes for a key: %w", err)
	}
	return secret, nil
}

// decode drops the cause that encoding/base64 gives: it names offsets, and some callers print it beside the input.
func decode(text []byte) (secret [Size]byte, err error) {
	text = bytes.TrimSpace(text)
	switch {
	case len(text) == 0:
		return secret, fmt.Errorf("the file is empty: %w", ErrMalformed)
	case len(text) > maxFile:
		return secret, fmt.Errorf("the file is too long: %w", ErrMalformed)
	}
	raw := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Strict().Decode(raw, text)
	if err != nil {
		return secret, fmt.Errorf("the file is not base64: %w", ErrMalformed)
	}
	if n != Size {
		return secret, fmt.Errorf("%w; the file holds %d bytes", ErrMalformed, n)
	}
	return [Size]byte(raw[:n]), nil
}

func publicKey(secret [Size]byte) (string, error) {
	k, err := ecdh.X25519().NewPrivateKey(secret[:])
	if err != nil {
		return "", fmt.Errorf("derive the public key: %w", err)
	}
	return base64.StdEncoding.EncodeToString(k.PublicKey().Bytes()), nil
}

func openError(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("key file %s: %w; run: sluice key gen %s", path, fs.ErrNotExist, path)
	}
	return fmt.Errorf("key file %s cannot be read: %w", path, err)
}

func kind(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "directory"
	case m&fs.ModeNamedPipe != 0:
		return "pipe"
	default:
		return "special file"
	}
}
