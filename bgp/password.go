package bgp

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"strings"
	"syscall"
)

const maxPassword = 80 // TCP_MD5SIG_MAXKEYLEN

// anotherPassword stands for a file that no longer holds the key of the session. No file has this name.
const anotherPassword = "\x00another"

// keyed is the State with anotherPassword where that is so. A file that cannot be read changes nothing.
func (s *Subsystem) keyed() State {
	s.mu.Lock()
	have, keys := s.have.normal(), map[netip.Addr]string{}
	if s.speaker != nil {
		keys = maps.Clone(s.speaker.passwords)
	}
	s.mu.Unlock()
	for i, n := range have.Neighbors {
		if changed(n, keys[n.Address]) {
			have.Neighbors[i].PasswordFile = anotherPassword
		}
	}
	return have
}

func changed(n Neighbor, key string) bool {
	password, err := readPassword(n.PasswordFile)
	return err == nil && password != key
}

// rekeyed says whether a neighbor's file holds another key than its session has, with change held.
func (s *Subsystem) rekeyed(n Neighbor) bool { return changed(n, s.speaker.passwords[n.Address]) }

// keep notes the key of a session, with change held; "" is none.
func (s *Subsystem) keep(addr netip.Addr, password string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.speaker.passwords[addr] = password; password == "" {
		delete(s.speaker.passwords, addr)
	}
}

// rekey makes a neighbor anew, by what its file holds now.
func (s *Subsystem) rekey(ctx context.Context, n Neighbor) error {
	if err := s.setNeighbor(ctx, n); err != nil {
		return err
	}
	s.did(Op{kind: setNeighbor, neighbor: n})
	return nil
}

// CheckPassword says why a session could not have the MD5 key of a file; "" is no file.
func CheckPassword(path string) error {
	_, err := readPassword(path)
	return err
}

// readPassword reads an MD5 key. The error never holds the contents. A trailing line end is not part of the key.
func readPassword(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	// Nonblocking: opening a pipe that nobody writes to would never return.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", fmt.Errorf("password file: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("password file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("password file %s is no regular file", path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return "", fmt.Errorf("password file %s has mode %04o, so others can read it: chmod 600 it", path, mode)
	}
	// A few bytes more than the longest key, so that a longer one is seen.
	b, err := io.ReadAll(io.LimitReader(f, maxPassword+3))
	if err != nil {
		return "", fmt.Errorf("password file: %w", err)
	}
	key := strings.TrimRight(string(b), "\r\n")
	if key == "" || len(key) > maxPassword {
		return "", fmt.Errorf("password file %s: want a key of 1 to %d bytes (RFC 2385)", path, maxPassword)
	}
	return key, nil
}
