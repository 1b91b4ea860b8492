package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strconv"
	"strings"

	"sluice/tests/bench/lane"
)

// Cipher is one cipher on one core of this machine, on messages of a size.
type Cipher struct {
	Name   string    // OpenSSL's
	Size   int       // bytes
	Micros []float64 // CPU µs per MB (10^6 bytes) sealed, by round
}

// OpenSSL's names of what ESP here and WireGuard encrypt with.
const (
	aesGCM = "aes-256-gcm"
	chaCha = "chacha20-poly1305"
)

// ciphers measures both by OpenSSL, whose code for either is as good as the kernel's: an emulated machine says nothing of
// what instructions for AES take on a real one.
func (b *bench) ciphers(ctx context.Context) error {
	version, err := exec.CommandContext(ctx, "openssl", "version").Output()
	if err != nil {
		return fmt.Errorf("openssl (make deps installs it): %w", err)
	}
	b.results.OpenSSL = strings.TrimSpace(string(version))
	b.results.Ciphers = nil
	for _, size := range b.o.Ciphers.Sizes {
		for _, name := range []string{aesGCM, chaCha} {
			b.results.Ciphers = append(b.results.Ciphers, Cipher{Name: name, Size: size})
		}
	}
	rng := rand.New(rand.NewPCG(7, 7))
	for range b.o.Ciphers.Rounds {
		for _, i := range rng.Perm(len(b.results.Ciphers)) {
			c := &b.results.Ciphers[i]
			micros, err := b.w.seal(ctx, c.Name, c.Size)
			if err != nil {
				return err
			}
			c.Micros = append(c.Micros, micros)
		}
	}
	return nil
}

// seal encrypts and authenticates messages for a second, each with a nonce of its own and 13 bytes of associated data.
func (w *workshop) seal(ctx context.Context, name string, size int) (microsPerMB float64, err error) {
	cmd := exec.CommandContext(ctx, "openssl", "speed", "-mr", "-aead", "-evp", name, "-bytes", strconv.Itoa(size), "-seconds", "1")
	var said, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &complaint
	here, err := lane.NewNamespace() // for its thread, which may be pinned
	if err != nil {
		return 0, err
	}
	err = here.Do(func() error { return errors.Join(lane.Pin(w.cpu), cmd.Run()) })
	if err := errors.Join(err, here.Close()); err != nil {
		return 0, fmt.Errorf("openssl speed %s: %w: %.300s", name, err, complaint.Bytes())
	}
	perSecond, err := speed(said.String())
	if err != nil {
		return 0, fmt.Errorf("openssl speed %s: %w", name, err)
	}
	return 1e6 / (perSecond / 1e6), nil
}

// speed finds bytes per second of CPU time in "+F:22:aes-256-gcm:1234567.00".
func speed(said string) (float64, error) {
	for line := range strings.Lines(said) {
		if !strings.HasPrefix(line, "+F:") {
			continue
		}
		fields := strings.Split(strings.TrimSpace(line), ":")
		v, err := strconv.ParseFloat(fields[len(fields)-1], 64)
		if err == nil && v <= 0 {
			err = errors.New("it is not positive")
		}
		return v, err
	}
	return 0, fmt.Errorf("no result in %.200q", said)
}
