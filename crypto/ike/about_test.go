package ike

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestCharonSaysWhatItIs(t *testing.T) {
	c := startCharon(t, newSpace(t), netlinked)
	var got About
	var err error
	until(t, "charon answers", func() bool {
		got, err = AskAbout(t.Context(), c.socket)
		return err == nil
	})
	if !strings.Contains(got.Version, "5.") || !slices.Contains(got.Plugins, "kernel-netlink") || slices.Contains(got.Plugins, "kernel-libipsec") || len(got.Foreign) != 0 {
		t.Errorf("got %+v", got)
	}
	if _, err := AskAbout(t.Context(), filepath.Join(t.TempDir(), "none")); !errors.Is(err, ErrNoCharon) {
		t.Errorf("error %v", err)
	}
}
