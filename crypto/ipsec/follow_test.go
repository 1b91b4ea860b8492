package ipsec

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// broken is a socket that tells once and then fails.
type broken struct{ tells bool }

func (b *broken) Receive() ([]syscall.NetlinkMessage, *unix.SockaddrNetlink, error) {
	if b.tells {
		b.tells = false
		return nil, nil, nil
	}
	return nil, nil, unix.EIO
}

func (*broken) Close() {}

func TestASocketForMappingsThatFailsIsReplacedAndToldOfOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		d := &Driver{log: slog.New(slog.NewTextHandler(&log, nil))}
		ctx, cancel := context.WithTimeout(t.Context(), 10*followPause-time.Second)
		defer cancel()
		sockets := 0
		d.follow(ctx, func() (teller, error) {
			if sockets++; sockets%2 == 0 {
				return nil, errors.New("too many open files")
			}
			return &broken{tells: sockets == 5}, nil
		})
		if told := strings.Count(log.String(), "level=ERROR"); sockets != 10 || told != 2 {
			t.Errorf("%d sockets, told %d times:\n%s", sockets, told, log.String())
		}
	})
}

// struct xfrm_user_mapping as a little-endian kernel sends it.
func TestMappingsAreRead(t *testing.T) {
	zeros := strings.Repeat("00", 12)
	v4 := "c6120001" + zeros + "e80eb001" + "0200" + "32" + "00" + "0100c051" + "c6120002" + zeros + "c6120003" + zeros + "1194" + "1195"
	six := func(last string) string { return "20010db8" + strings.Repeat("00", 11) + last }
	v6 := six("01") + "e80eb001" + "0a00" + "32" + "00" + "0100c051" + six("02") + six("03") + "0000" + "1195"
	for text, want := range map[string]mapping{
		v4: {netip.MustParseAddr("198.18.0.1"), 0xe80eb001, 0x51c00001, netip.MustParseAddrPort("198.18.0.3:4501")},
		v6: {netip.MustParseAddr("2001:db8::1"), 0xe80eb001, 0x51c00001, netip.MustParseAddrPort("[2001:db8::3]:4501")},
	} {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := parseMapping(b); !ok || got != want {
			t.Errorf("got %+v (%v), want %+v", got, ok, want)
		}
		if _, ok := parseMapping(b[:63]); ok {
			t.Error("a short message is taken")
		}
	}
	if _, ok := parseMapping(make([]byte, 64)); ok {
		t.Error("a message of no family is taken")
	}
}

func TestAPeerIsSentToWhereItMovedUntilTheFileSaysOtherwise(t *testing.T) {
	wanted, moved := netip.MustParseAddrPort("198.18.0.2:0"), netip.MustParseAddrPort("198.18.0.3:4501")
	p := &peer{want: Peer{Endpoint: wanted}}
	if p.endpoint() != wanted {
		t.Errorf("before it moved: %s", p.endpoint())
	}
	p.At = moved
	tun := &tunnel{want: Tunnel{Local: netip.MustParseAddrPort("198.18.0.1:0"), Encapsulation: UDP, Keying: Static}}
	if s := tun.sending(p); s.dst != moved.Addr() || s.dport != 4501 || s.sport != DefaultPort {
		t.Errorf("sent to %s port %d from %d", s.dst, s.dport, s.sport)
	}
	p.want.Prefixes = []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16")}
	for _, one := range tun.policies(p) {
		if one.way == out && one.remote != moved.Addr() {
			t.Errorf("the policy leads to %s", one.remote)
		}
	}
}
