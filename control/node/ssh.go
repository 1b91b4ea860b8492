package node

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/crypto/ssh"

	"sluice/control/disk"
)

// sshd is the unit of the image that runs the server with our configuration; nothing else starts one.
const sshd = "sluice-sshd.service"

type server struct{ *Node }

func (p server) config() string  { return filepath.Join(p.o.Dir, "sshd_config") }
func (p server) keys() string    { return filepath.Join(p.o.Dir, "authorized_keys") }
func (p server) hostKey() string { return filepath.Join(p.o.StateDir, "keys", "ssh_host_ed25519_key") }

// text is sshd_config(5). Root is the only user, and comes from where management: lets the port in: this holds as well while no program
// of ours filters.
func (p server) text(s *SSH) string {
	text := fmt.Sprintf(`# written by Sluice: node.ssh
Port %d
HostKey %s
AuthorizedKeysFile %s
AuthenticationMethods publickey
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UsePAM yes
PidFile none
PrintMotd no
X11Forwarding no
AllowAgentForwarding no
Subsystem sftp internal-sftp
`, s.Port, p.hostKey(), p.keys())
	if s.From == nil {
		return text + "AllowUsers root\n"
	}
	for _, prefix := range s.From {
		text += "AllowUsers root@" + prefix.String() + "\n"
	}
	return text
}

func (p server) set(ctx context.Context, s State) error {
	if err := makeHostKey(p.hostKey()); err != nil {
		return fmt.Errorf("host key: %w", err)
	}
	if err := errors.Join(put(p.keys(), keysText(s.SSH), 0o600), put(p.config(), p.text(s.SSH), 0o600)); err != nil {
		return err
	}
	return p.o.Units(ctx, "restart", sshd)
}

func (p server) unset(ctx context.Context) error {
	if err := p.o.Units(ctx, "stop", sshd); err != nil {
		return err
	}
	return errors.Join(remove(p.config()), remove(p.keys()))
}

func (p server) holds(ctx context.Context, s State) bool {
	return contains(p.config(), p.text(s.SSH)) && contains(p.keys(), keysText(s.SSH)) && p.o.Units(ctx, "is-active", "--quiet", sshd) == nil
}

// makeHostKey makes the node's identity once: it survives updates, and clients know it.
func makeHostKey(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return err
	}
	shown, err := ssh.NewPublicKey(public)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	// The private one last: where it is, both are.
	if err := put(path+".pub", string(ssh.MarshalAuthorizedKey(shown)), 0o644); err != nil {
		return err
	}
	return disk.Replace(path, pem.EncodeToMemory(block))
}
