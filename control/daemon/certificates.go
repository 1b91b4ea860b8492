package daemon

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"sluice/control/api"
	"sluice/control/config"
	"sluice/control/host"
	"sluice/crypto/keys"
)

// certificates are what the files of a tunnel's auth hold.
type certificates struct {
	own    *x509.Certificate // nil: it cannot be read
	cas    []*x509.Certificate
	faults []certificateFault
}

// certificateFault is why charon cannot be given a file; key is that of the configuration, and pos where it stands.
type certificateFault struct {
	key string
	pos config.Pos
	err error
}

// readCertificates reads all of them: all faults come at once.
func readCertificates(t config.Tunnel) (c certificates) {
	a := t.IPsec.Auth
	fail := func(key string, pos config.Pos, err error) {
		if errors.Is(err, fs.ErrNotExist) {
			err = errors.New(strings.Replace(err.Error(), fs.ErrNotExist.Error(), "it does not exist", 1))
		}
		c.faults = append(c.faults, certificateFault{key, pos, err})
	}
	chain, errChain := keys.ReadChain(a.CertificateFile)
	if errChain != nil {
		fail("auth.certificate_file", a.CertificatePos, errChain)
	} else {
		c.own = chain[0]
	}
	signer, errKey := keys.LoadSigner(a.PrivateKeyFile)
	if errKey != nil {
		fail("auth.private_key_file", a.PrivateKeyPos, errKey)
	}
	if errChain == nil && errKey == nil {
		if err := signer.Fits(c.own); err != nil {
			fail("auth.private_key_file", a.PrivateKeyPos, err)
		}
	}
	if c.own != nil && !keys.Bears(c.own, t.IPsec.ID) {
		// charon would call itself by the subject instead.
		fail("auth.certificate_file", a.CertificatePos, fmt.Errorf("the certificate is not for this node's id %s: write ipsec.id as one of: %s",
			t.IPsec.ID, strings.Join(keys.Identities(c.own), "; ")))
	}
	for i, file := range a.CAFiles {
		list, err := keys.ReadCAs(file)
		if err != nil {
			fail(fmt.Sprintf("auth.ca_files[%d]", i), a.CAPos[i], err)
		}
		c.cas = append(c.cas, list...)
	}
	return c
}

// periods say which certificates are not valid now, or not for long.
func (c certificates) periods(now time.Time) (out []string) {
	if c.own != nil {
		if text, _ := keys.Period(c.own, now); text != "" {
			out = append(out, fmt.Sprintf("the certificate %s %s", keys.Subject(c.own), text))
		}
	}
	for _, ca := range c.cas {
		if text, _ := keys.Period(ca, now); text != "" {
			out = append(out, fmt.Sprintf("the certificate of CA %s %s", keys.Subject(ca), text))
		}
	}
	return out
}

// certificateWarnings are the periods of all tunnels' certificates that can be read.
func certificateWarnings(cfg *config.Config, now time.Time) (out []string) {
	for _, t := range cfg.Tunnels {
		if t.IPsec == nil || t.IPsec.Auth == nil {
			continue
		}
		for _, text := range readCertificates(t).periods(now) {
			out = append(out, fmt.Sprintf("tunnel %s: %s", t.Name, text))
		}
	}
	return out
}

// certificateFinding is what the doctor says; told is false where no tunnel has certificates.
func certificateFinding(cfg *config.Config, now time.Time) (f host.Finding, told bool) {
	var faults []string
	for _, t := range cfg.Tunnels {
		if t.IPsec == nil || t.IPsec.Auth == nil {
			continue
		}
		told = true
		c := readCertificates(t)
		for _, fault := range c.faults {
			faults = append(faults, fmt.Sprintf("tunnel %s: ipsec.%s: %v", t.Name, fault.key, fault.err))
		}
		for _, text := range c.periods(now) {
			faults = append(faults, fmt.Sprintf("tunnel %s: %s", t.Name, text))
		}
	}
	if len(faults) == 0 {
		return fine("tunnel-certificates", "all are valid, and those of this node belong to their keys and ids"), told
	}
	return host.Finding{Name: "tunnel-certificates", Status: host.StatusWarn, Detail: strings.Join(faults, "; "),
		Cost: "what is established goes on, and no peer takes a new session with a certificate that is not valid",
		Fix:  "put new files in the place of the old ones, the certificate and its key: they are taken within half a minute, and nothing has to be applied"}, told
}

// shownCertificate is what `show tunnels` says of them; nil: the tunnel has none.
func shownCertificate(t config.Tunnel, now time.Time) *api.TunnelCertificate {
	if t.IPsec == nil || t.IPsec.Auth == nil {
		return nil
	}
	c := readCertificates(t)
	out := &api.TunnelCertificate{File: t.IPsec.Auth.CertificateFile}
	if c.own != nil {
		out.Subject, out.Issuer, out.NotBefore, out.NotAfter = keys.Subject(c.own), keys.Issuer(c.own), c.own.NotBefore, c.own.NotAfter
	}
	for _, ca := range c.cas {
		if out.CANotAfter.IsZero() || ca.NotAfter.Before(out.CANotAfter) {
			out.CANotAfter = ca.NotAfter
		}
	}
	var why []string
	for _, f := range c.faults {
		why = append(why, fmt.Sprintf("ipsec.%s: %v", f.key, f.err))
	}
	out.Why = strings.Join(append(why, c.periods(now)...), "; ")
	return out
}
