package ike

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/strongswan/govici/vici"

	"sluice/crypto/keys"
)

// IKE's two UDP ports, RFC 7296 section 2.
const (
	portIKE  = 500
	portNATT = 4500
)

// dpdDelay is how long a peer may be silent before it is asked. How long its answer is waited for is a matter of
// charon's own configuration (165 s as it comes).
const dpdDelay = 10 * time.Second

// connMessage is a connection of load-conn. Empty strings and lists are left out.
type connMessage struct {
	Version       string                  `vici:"version"`
	LocalAddrs    []string                `vici:"local_addrs"`
	RemoteAddrs   []string                `vici:"remote_addrs"`
	LocalPort     string                  `vici:"local_port"`
	RemotePort    string                  `vici:"remote_port"`
	Proposals     []string                `vici:"proposals"`
	Encap         string                  `vici:"encap"`
	MOBIKE        string                  `vici:"mobike"`
	SendCertReq   string                  `vici:"send_certreq"`
	SendCert      string                  `vici:"send_cert"`
	Fragmentation string                  `vici:"fragmentation"`
	Unique        string                  `vici:"unique"`
	KeyingTries   string                  `vici:"keyingtries"`
	DPDDelay      string                  `vici:"dpd_delay"`
	RekeyTime     string                  `vici:"rekey_time"`
	Local         authMessage             `vici:"local"`
	Remote        authMessage             `vici:"remote"`
	Children      map[string]childMessage `vici:"children"`
}

type authMessage struct {
	Auth    string   `vici:"auth"`
	ID      string   `vici:"id"`
	Certs   []string `vici:"certs"`   // DER
	CACerts []string `vici:"cacerts"` // DER; one of them must have issued what the other end shows
}

type childMessage struct {
	Mode         string   `vici:"mode"`
	LocalTS      []string `vici:"local_ts"`
	RemoteTS     []string `vici:"remote_ts"`
	ESPProposals []string `vici:"esp_proposals"`
	ReqID        string   `vici:"reqid"`
	IfIDIn       string   `vici:"if_id_in"`
	IfIDOut      string   `vici:"if_id_out"`
	SetMarkOut   string   `vici:"set_mark_out"`
	ReplayWindow string   `vici:"replay_window"`
	RekeyTime    string   `vici:"rekey_time"`
	StartAction  string   `vici:"start_action"`
	DPDAction    string   `vici:"dpd_action"`
	CloseAction  string   `vici:"close_action"`
}

// message is what load-conn is told. The child never has start_action "start": with it charon closes the SAs of a
// connection that is loaded anew or unloaded, and what changed could not be replaced without a gap. A trap asks for an SA
// when a packet is there for it, so the end that leads needs no daemon to come up again.
//
// charon installs no route for a policy with an interface id (kernel-netlink; kernel-libipsec does, and knows no ids).
func (c Conn) message(p proof) connMessage {
	rekey := cmp.Or(c.Rekey, DefaultRekey)
	m := connMessage{
		Version: "2", LocalAddrs: []string{c.Local.String()}, RemoteAddrs: []string{c.Remote.Addr().String(), anyOf(c.Local)},
		Proposals: orElse(c.IKEProposals, DefaultIKEProposals),
		Encap:     yesNo(c.Encapsulate), MOBIKE: "no", SendCertReq: "no", Fragmentation: "yes", Unique: "no", KeyingTries: "1",
		DPDDelay: seconds(dpdDelay), RekeyTime: seconds(4 * rekey),
		Local: authMessage{Auth: "psk", ID: c.LocalID}, Remote: authMessage{Auth: "psk", ID: c.RemoteID},
	}
	if c.Certificates != nil {
		m.Local.Auth, m.Local.Certs = "pubkey", p.leaf()
		m.Remote.Auth, m.Remote.CACerts = "pubkey", p.anchors()
		// A Sluice knows what it has to show; other boxes choose by what they are asked for, and show theirs when they are.
		m.SendCert, m.SendCertReq = "always", "yes"
	}
	// Both ports or none: charon marks packets as no ESP (RFC 3948 section 2.2) only where neither port is 500.
	if p := c.Remote.Port(); p != 0 && p != portIKE {
		m.LocalPort, m.RemotePort = fmt.Sprint(portNATT), fmt.Sprint(p)
	}
	child := childMessage{
		Mode: "tunnel", ESPProposals: orElse(c.ESPProposals, DefaultESPProposals),
		ReqID: fmt.Sprint(c.reqid()), RekeyTime: seconds(rekey),
		StartAction: "none", DPDAction: "none", CloseAction: "none",
	}
	child.LocalTS, child.RemoteTS = selectors(c.Prefixes)
	if c.InterfaceID != 0 {
		child.IfIDIn, child.IfIDOut = fmt.Sprintf("%#x", c.InterfaceID), fmt.Sprintf("%#x", c.InterfaceID)
	}
	if c.Mark != 0 {
		// The mask is all bits: no mark of the inner packet is to show on the encrypted one.
		child.SetMarkOut = fmt.Sprintf("%#x/0xffffffff", c.Mark)
	}
	if c.ReplayWindow != 0 {
		child.ReplayWindow = fmt.Sprint(c.ReplayWindow)
	}
	if leads(c.LocalID, c.RemoteID) {
		child.StartAction, child.DPDAction = "trap", "start"
	}
	m.Children = map[string]childMessage{c.childName(p): child}
	return m
}

func (c Conn) loadConn(p proof) (*vici.Message, error) {
	return vici.MarshalMessage(map[string]connMessage{c.name(): c.message(p)})
}

// selectors are everything on our side, of the families that the peer has prefixes of: the other end narrows it to what it
// lets us send from.
func selectors(prefixes []netip.Prefix) (local, remote []string) {
	for _, p := range slices.SortedFunc(slices.Values(prefixes), netip.Prefix.Compare) {
		if whole := anyOf(p.Addr()); !slices.Contains(local, whole) {
			local = append(local, whole)
		}
		remote = append(remote, p.String())
	}
	return local, remote
}

func orElse(list, other []string) []string {
	if len(list) == 0 {
		return other
	}
	return list
}

func anyOf(a netip.Addr) string {
	if a.Is4() {
		return "0.0.0.0/0"
	}
	return "::/0"
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func seconds(d time.Duration) string { return fmt.Sprintf("%ds", max(1, int64(d/time.Second))) }

// secretID names a preshared key in charon: whose it is, which one, and from which file, so that a changed key or file is
// seen without reading anything back. The digest is of 256 random bits, and shows nothing of them.
func secretID(tunnel, peer, file string, key keys.Key) string {
	return connName(tunnel, peer) + ":" + secretDigest(key) + ":" + file
}

func secretDigest(key keys.Key) string {
	secret := key.Bytes()
	mac := hmac.New(sha256.New, secret[:])
	mac.Write([]byte("sluice ike secret id v1"))
	return hex.EncodeToString(mac.Sum(nil)[:8])
}

// secret is a preshared key that charon holds, as its id tells.
type secret struct{ id, conn, digest, file string }

// parseSecretID undoes secretID; ok is false for what is not ours.
func parseSecretID(id string) (s secret, ok bool) {
	parts := strings.SplitN(id, ":", 5)
	if len(parts) != 5 || parts[0]+":" != prefix {
		return secret{}, false
	}
	return secret{id, connName(parts[1], parts[2]), parts[3], parts[4]}, true
}

// sharedMessage is a key of load-shared. charon takes the bytes of data as they are.
type sharedMessage struct {
	ID     string   `vici:"id"`
	Type   string   `vici:"type"`
	Data   string   `vici:"data"`
	Owners []string `vici:"owners"`
}

func (c Conn) loadShared(key keys.Key) (*vici.Message, error) {
	secret := key.Bytes()
	return vici.MarshalMessage(sharedMessage{
		ID: secretID(c.Tunnel, c.Peer, c.SecretFile, key), Type: "IKE", Data: string(secret[:]), Owners: []string{c.LocalID, c.RemoteID},
	})
}
