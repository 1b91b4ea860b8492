package config

// auth is nil where preshared keys prove who is who.
func (b *builder) auth(r *rawAuth) *Auth {
	if !r.Method.ok {
		return nil
	}
	if r.Method.v == byPSK {
		for _, key := range []at{r.CertificateFile.at, r.PrivateKeyFile.at, r.CAFiles.at} {
			b.foreign(key, "method: certificate")
		}
		return nil
	}
	out := &Auth{CertificateFile: string(r.CertificateFile.v), PrivateKeyFile: string(r.PrivateKeyFile.v),
		CertificatePos: r.CertificateFile.pos, PrivateKeyPos: r.PrivateKeyFile.pos}
	if !r.CertificateFile.written() {
		b.add(r.at, bad("`certificate_file` is missing").or("write the path of this node's certificate, in PEM"))
	}
	if !r.PrivateKeyFile.written() {
		b.add(r.at, bad("`private_key_file` is missing").or("write the path of the certificate's private key, in PEM, mode 0600"))
	}
	if !r.CAFiles.any() && !r.CAFiles.unsure() {
		where := r.at
		if r.CAFiles.written() {
			where = r.CAFiles.at
		}
		b.add(where, bad("`ca_files` names nobody who could have issued the peers' certificates").or("write ca_files: [PATH]: charon believes no other CA here"))
	}
	seen := map[string]at{}
	for _, f := range r.CAFiles.items {
		b.unique(seen, string(f.v), f.ok, f.at, "file")
		out.CAFiles, out.CAPos = append(out.CAFiles, string(f.v)), append(out.CAPos, f.pos)
	}
	if f := r.PrivateKeyFile; f.ok && f.v == r.CertificateFile.v {
		b.add(f.at, bad("the certificate and its private key are in one file").or("keep the key in a file of its own, of mode 0600"))
	}
	return out
}

// ikeSecret is what the peers of a tunnel with charon have of their own; with certificates they have nothing.
func (b *builder) ikeSecret(auth *rawAuth, r *rawPeer) {
	switch {
	case auth.Method.ok && auth.Method.v == byCertificate:
		b.foreign(r.PresharedKeyFile.at, "auth: {method: psk}")
	case auth.written() && !auth.Method.ok: // nobody knows what it should be
	case !r.PresharedKeyFile.written():
		b.add(r.at, bad("`preshared_key_file` is missing").
			or("IKE proves by a secret that both ends have: `sluice key psk FILE` makes one; or write ipsec.auth: {method: certificate, ...}"))
	}
	if r.ID.ok && r.ID.v.isSubject() && !(auth.Method.ok && auth.Method.v == byCertificate) {
		b.add(r.ID.at, bad("a subject is the id of who shows a certificate").or("write an address or a name, or ipsec.auth: {method: certificate, ...}"))
	}
}
