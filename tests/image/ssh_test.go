//go:build image

package image

import (
	"crypto/ed25519"
	"crypto/rand"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sluice/tests/nstest"
)

func newKey(t testing.TB) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// authorized is a key's line for the configuration.
func authorized(key ssh.Signer) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key.PublicKey()))) + " somebody"
}

// secureShell runs a command as root of a machine that ns reaches.
func secureShell(ns *nstest.NS, address string, key ssh.Signer, command string) (said string, err error) {
	var wire net.Conn
	if err := ns.Try(func() (err error) { wire, err = net.DialTimeout("tcp", address, time.Minute); return err }); err != nil {
		return "", err
	}
	defer wire.Close()
	_ = wire.SetDeadline(time.Now().Add(slow))
	conn, channels, requests, err := ssh.NewClientConn(wire, address, &ssh.ClientConfig{
		User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		return "", err
	}
	client := ssh.NewClient(conn, channels, requests)
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		return "", err
	}
	out, err := session.Output(command)
	return string(out), err
}
