package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// LoginFlag is there in Dir while the console lets somebody log in.
const LoginFlag = "console-login"

// login is root's password, which the console alone asks for: SSH takes none.
type login struct{ *Node }

func (p login) flag() string   { return filepath.Join(p.o.Dir, LoginFlag) }
func (p login) shadow() string { return p.system("/etc/shadow") }

// locked is a password field that no password matches (shadow(5)), and that SSH by key does not mind.
const locked = "*"

// cryptHash is what crypt(5) of trixie makes: yescrypt, scrypt, bcrypt, SHA-512 and SHA-256.
var cryptHash = regexp.MustCompile(`^\$(y|gy|7|2[aby]|6|5)\$[A-Za-z0-9./$,=-]{20,}$`)

func (p login) set(_ context.Context, s State) error {
	hash, err := readHash(s.Console.HashFile)
	if err != nil {
		return err
	}
	if err := p.setPassword(hash); err != nil {
		return err
	}
	return put(p.flag(), "", 0o644)
}

func (p login) unset(context.Context) error {
	return errors.Join(remove(p.flag()), p.setPassword(locked))
}

func (p login) holds(_ context.Context, s State) bool {
	hash, err := readHash(s.Console.HashFile)
	now, failed := p.password()
	return err == nil && failed == nil && now == hash && contains(p.flag(), "")
}

// readHash says what is wrong with a file without a word of what it holds.
func readHash(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return "", err
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("%s is not a regular file", path)
	case info.Mode().Perm()&0o077 != 0:
		return "", fmt.Errorf("%s can be read by others: chmod 600 it", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, 1024))
	if err != nil {
		return "", err
	}
	hash := strings.TrimRight(string(b), "\r\n")
	if !cryptHash.MatchString(hash) {
		return "", fmt.Errorf("%s does not hold the hash of a password: put in one line of `mkpasswd -m yescrypt`", path)
	}
	return hash, nil
}

// root finds root's line in shadow(5) and its fields.
func (p login) root() (lines []string, at int, fields []string, err error) {
	b, err := os.ReadFile(p.shadow())
	if err != nil {
		return nil, 0, nil, err
	}
	lines = strings.Split(string(b), "\n")
	for i, line := range lines {
		if fields := strings.Split(line, ":"); fields[0] == "root" && len(fields) > 1 {
			return lines, i, fields, nil
		}
	}
	return nil, 0, nil, fmt.Errorf("%s has no line for root", p.shadow())
}

func (p login) password() (string, error) {
	_, _, fields, err := p.root()
	if err != nil {
		return "", err
	}
	return fields[1], nil
}

func (p login) setPassword(hash string) error {
	lines, at, fields, err := p.root()
	if err != nil {
		return err
	}
	fields[1] = hash
	lines[at] = strings.Join(fields, ":")
	return put(p.shadow(), strings.Join(lines, "\n"), 0o600)
}
