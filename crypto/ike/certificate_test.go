package ike

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/crypto/keys"
	"sluice/tests/authority"
)

// issue is what an end proves itself with; the certificates of between stand behind its own.
func issue(t *testing.T, a authority.CA, dir, id, kind string, between ...authority.CA) *Certificates {
	t.Helper()
	f := a.Issue(t, dir, id, kind, between...)
	return &Certificates{Certificate: f.Certificate, PrivateKey: f.PrivateKey}
}

// certify has both ends prove themselves by certificates of CAs of their own.
func (p *pair) certify(t *testing.T, dir string, ofA, ofB authority.CA, kind string) {
	t.Helper()
	p.a.conn.SecretFile, p.b.conn.SecretFile = "", ""
	p.a.conn.Certificates, p.b.conn.Certificates = issue(t, ofA, dir, "edge-a", kind), issue(t, ofB, dir, "edge-b", kind)
	p.a.conn.Certificates.CAs, p.b.conn.Certificates.CAs = []string{ofB.File(t, dir)}, []string{ofA.File(t, dir)}
}

// keyIDs are the private keys that charon holds.
func (e *end) keyIDs(t *testing.T) []string {
	t.Helper()
	s, err := open(t.Context(), e.charon.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	ids, err := s.keyIDs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func keyIDOf(t *testing.T, f *Certificates) string {
	t.Helper()
	chain, err := keys.ReadChain(f.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	return keys.KeyID(chain[0])
}

func TestCertificatesOfSeveralKindsProveBothEnds(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"ec", "rsa", "ed25519"} {
		t.Run(kind, func(t *testing.T) {
			p, dir := newPair(t), t.TempDir()
			root := authority.New(t, "root", kind)
			p.certify(t, dir, root, root, kind)
			p.up(t)
			if got, want := p.a.keyIDs(t), keyIDOf(t, p.a.conn.Certificates); !slices.Equal(got, []string{want}) {
				t.Errorf("charon holds the keys %s, want %s", got, want)
			}
			if s := p.a.status(t); s.Changed || s.Why != "" || s.SAs[0].RemoteID != "edge-b" {
				t.Errorf("status %+v", s)
			}
			if err := p.a.client.Unload(t.Context(), "fra1", "b"); err != nil {
				t.Fatal(err)
			}
			if got := p.a.keyIDs(t); len(got) != 0 {
				t.Errorf("an unloaded peer leaves the private keys %s in charon", got)
			}
		})
	}
}

// Another CA in between, whose certificate only its holder has, and a subject as an id.
func TestAChainIsShownAndASubjectIsAnID(t *testing.T) {
	t.Parallel()
	p, dir := newPair(t), t.TempDir()
	root := authority.New(t, "root", "ec")
	between := root.Below(t, "between", "ec")
	p.certify(t, dir, root, root, "ec")
	p.a.conn.Certificates = issue(t, between, dir, "edge-a", "ec", between)
	p.a.conn.Certificates.CAs = p.b.conn.Certificates.CAs
	p.a.conn.LocalID, p.b.conn.RemoteID = "O=Example, CN=edge-a", "O=Example, CN=edge-a"
	p.up(t)
	if s := p.b.status(t); s.SAs[0].RemoteID != "O=Example, CN=edge-a" {
		t.Errorf("a is %s to b", s.SAs[0].RemoteID)
	}
}

func TestAnEndOfAnotherCAIsRefusedAndBothEndsSayWhy(t *testing.T) {
	t.Parallel()
	p, dir := newPair(t), t.TempDir()
	root, stranger := authority.New(t, "root", "ec"), authority.New(t, "stranger", "ec")
	p.certify(t, dir, root, root, "ec")
	p.a.conn.Certificates = issue(t, stranger, dir, "edge-a", "ec")
	p.a.conn.Certificates.CAs = p.b.conn.Certificates.CAs
	p.b.load(t)
	p.a.load(t)
	until(t, "b says that a is of no CA of its own", func() bool { return strings.Contains(p.b.status(t).Why, "not in ca_files") })
	until(t, "a says that b refuses it", func() bool { return strings.Contains(p.a.status(t).Why, "refuses this end") })
	if why := p.b.status(t).Why; !strings.Contains(why, "CN=edge-a") {
		t.Errorf("b says %q, which does not name the certificate", why)
	}
	if p.a.status(t).Up() || p.b.status(t).Up() {
		t.Fatal("it is up")
	}
	// With a certificate of the right CA it comes up, and nobody has to say so.
	issue(t, root, dir, "edge-a", "ec")
	p.a.hears(t, PeerUp)
	if why := p.a.status(t).Why; why != "" {
		t.Errorf("it is up, and says %q", why)
	}
}

func TestAnExchangedCertificateIsTakenWithoutALossOfTheSA(t *testing.T) {
	t.Parallel()
	p, dir := newPair(t), t.TempDir()
	root := authority.New(t, "root", "ec")
	p.certify(t, dir, root, root, "ec")
	p.up(t)
	before, oldKey := p.a.status(t).SAs[0], keyIDOf(t, p.a.conn.Certificates)
	f := p.a.flow(t, "10.10.0.1", "10.20.0.1")

	// Of a certificate without its key nothing is taken.
	fresh := issue(t, root, t.TempDir(), "edge-a", "rsa") // elsewhere, or both would be in place for a moment
	if err := os.Rename(fresh.Certificate, p.a.conn.Certificates.Certificate); err != nil {
		t.Fatal(err)
	}
	f.more(t, 1000)
	if s := p.a.status(t); !s.Up() || s.Changed || s.SAs[0].ID != before.ID {
		t.Fatalf("a certificate without its key was taken: %+v", s)
	}
	if err := os.Rename(fresh.PrivateKey, p.a.conn.Certificates.PrivateKey); err != nil {
		t.Fatal(err)
	}
	newKey := keyIDOf(t, p.a.conn.Certificates)
	until(t, "the new certificate proves the only SA", func() bool {
		s := p.a.status(t)
		return len(s.SAs) == 1 && s.SAs[0].ID != before.ID && s.Up() && !s.Changed
	})
	until(t, "charon holds the new key alone", func() bool { return slices.Equal(p.a.keyIDs(t), []string{newKey}) })
	if newKey == oldKey {
		t.Fatal("the test has exchanged nothing")
	}
	f.answered(t, 200)
	// kernel-libipsec answers by the new SA before its peer has it: some are lost, as many as the charons are late, and none
	// while nothing changes. More than two seconds of it is a gap.
	if sent, lost := f.finish(t); lost > int(2*time.Second/pace) {
		t.Errorf("%d of %d datagrams are lost", lost, sent)
	} else {
		t.Logf("%d of %d datagrams are lost", lost, sent)
	}
	// A client that was started anew knows the key by the connection, and takes it out with it.
	p.a.stop()
	again := New(p.a.charon.socket, logTo(t))
	if err := again.UnloadTunnel(t.Context(), "fra1"); err != nil {
		t.Fatal(err)
	}
	if got := p.a.keyIDs(t); len(got) != 0 {
		t.Errorf("keys %s stay in charon", got)
	}
}

func TestALostPrivateKeyComesBackWithTheCertificates(t *testing.T) {
	t.Parallel()
	p, dir := newPair(t), t.TempDir()
	root := authority.New(t, "root", "ec")
	p.certify(t, dir, root, root, "ec")
	p.up(t)
	s, err := open(t.Context(), p.a.charon.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if _, err := s.ask(t.Context(), "clear-creds", nil); err != nil { // as swanctl --load-creds --clear does
		t.Fatal(err)
	}
	until(t, "the key is back", func() bool { return len(p.a.keyIDs(t)) == 1 })
	if err := p.a.client.Terminate(t.Context(), "fra1", "b"); err != nil {
		t.Fatal(err)
	}
	p.a.hears(t, PeerDown)
	p.a.hears(t, PeerUp)
	p.a.answers(t, "10.10.0.1", "10.20.0.1")
}

func TestFilesThatProveNothingAreRefusedByWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	root := authority.New(t, "root", "ec")
	good := *issue(t, root, dir, "edge-a", "ec")
	good.CAs = []string{root.File(t, dir)}
	other := issue(t, root, dir, "edge-z", "ec")
	conn := example()
	for name, c := range map[string]struct {
		files Certificates
		id    string
		says  string
	}{
		"good":                  {good, "edge-a", ""},
		"no certificate":        {Certificates{"/none.pem", good.PrivateKey, good.CAs}, "edge-a", "/none.pem"},
		"no key":                {Certificates{good.Certificate, "/none.key", good.CAs}, "edge-a", "/none.key"},
		"another key":           {Certificates{good.Certificate, other.PrivateKey, good.CAs}, "edge-a", "does not belong"},
		"a key for a CA":        {Certificates{good.Certificate, good.PrivateKey, []string{good.PrivateKey}}, "edge-a", "private key as well"},
		"another id":            {good, "edge-1", "write ipsec.id as one of: edge-a; O=Example, CN=edge-a"},
		"an end for a CA":       {Certificates{good.Certificate, good.PrivateKey, []string{other.Certificate}}, "edge-a", "CA:TRUE"},
		"a certificate for key": {Certificates{good.Certificate, good.Certificate, good.CAs}, "edge-a", "open to others"},
	} {
		conn.Certificates, conn.LocalID = &c.files, c.id
		_, err := proofOf(conn)
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}
