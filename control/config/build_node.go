package config

const defaultSSHPort port = 22

func (b *builder) node(raw *rawNode) {
	b.cfg.Node = Node{Name: string(raw.Name.v), StateDir: string(raw.StateDir.v), BPFDir: string(raw.BPFDir.v), Socket: string(raw.Socket.v)}
	if raw.Governor.written() {
		b.cfg.Node.Governor = Governor{Name: string(raw.Governor.v), Pos: raw.Governor.pos}
	}
	for _, server := range good(raw.DNS) {
		b.cfg.Node.DNS = append(b.cfg.Node.DNS, server.Addr)
	}
	seen := map[string]at{}
	for _, server := range raw.NTP.items {
		b.unique(seen, server.v.String(), server.ok, server.at, "server")
		if server.ok {
			b.cfg.Node.NTP = append(b.cfg.Node.NTP, server.v.Addr)
		}
	}
	b.ssh(&raw.SSH)
	b.console(&raw.Console)
}

func (b *builder) ssh(raw *rawSSH) {
	if !raw.written() {
		return
	}
	if raw.AuthorizedKeys.empty() {
		b.add(raw.AuthorizedKeys.at, bad("nobody could log in").or("write the public keys of those who may, or remove ssh"))
	}
	out := &SSH{Port: uint16(raw.Port.or(defaultSSHPort)), Pos: raw.pos}
	seen := map[string]at{}
	for _, k := range raw.AuthorizedKeys.items {
		if first, twice := seen[k.v.wire]; twice && k.ok {
			b.add(k.at, bad("the key is there twice").or("the first stands at %s", place(first)))
		}
		seen[k.v.wire] = k.at
		out.AuthorizedKeys = append(out.AuthorizedKeys, k.v.line)
	}
	b.cfg.Node.SSH = out
}

func (b *builder) console(raw *rawConsole) {
	switch {
	case !raw.written():
	case bool(raw.Login.v) && !raw.PasswordHashFile.written():
		b.add(raw.at, bad("a login needs a password").or("write password_hash_file: the path of a file with one line, as `mkpasswd -m yescrypt` prints it"))
	case raw.Login.ok && !bool(raw.Login.v) && raw.PasswordHashFile.written():
		b.add(raw.PasswordHashFile.at, bad("without a login nobody asks for the password").or("remove it, or write login: true"))
	}
	b.cfg.Node.Console = Console{Login: bool(raw.Login.v), PasswordHashFile: string(raw.PasswordHashFile.v)}
}

// sshPort reports a port that something else of this box listens on.
func (b *builder) sshPort(raw *rawConfig) {
	ssh := b.cfg.Node.SSH
	if ssh == nil {
		return
	}
	where := raw.Node.SSH.Port.at
	if !where.written() {
		where = raw.Node.SSH.at
	}
	switch {
	case b.cfg.BGP != nil && b.cfg.BGP.Listen == ssh.Port:
		b.add(where, bad("BGP listens on TCP port %d", ssh.Port).or("write another port, or another bgp.listen"))
	case raw.Telemetry.Metrics.ok && raw.Telemetry.Metrics.v.Port() == ssh.Port:
		b.add(where, bad("telemetry.metrics listens on TCP port %d", ssh.Port).or("write another port"))
	}
}
