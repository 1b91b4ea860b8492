package slots

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// mirror serves what lies in a directory.
func mirror(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s
}

func TestAnImageComesByHTTP(t *testing.T) {
	n := standing(t)
	dir := filepath.Dir(n.release(t, "1.2"))
	s := mirror(t, http.FileServer(http.Dir(dir)).ServeHTTP)
	in, err := n.Install(t.Context(), s.URL+"/sluice.efi?channel=stable", InstallOptions{})
	if err != nil || in.Next != "1.2" {
		t.Fatalf("%+v %v", in, err)
	}
	if got, want := n.files(t), []string{"sluice_1.1.efi", "sluice_1.2+3.efi"}; !slices.Equal(got, want) {
		t.Errorf("there are %q, want %q", got, want)
	}
	nothingFetchedIsLeft(t, n)
}

func nothingFetchedIsLeft(t *testing.T, n *node) {
	t.Helper()
	if left, err := filepath.Glob(filepath.Join(n.opts.Notes, ".fetched-*")); err != nil || len(left) > 0 {
		t.Errorf("left: %q %v", left, err)
	}
}

func TestWhatCannotBeFetchedChangesNothing(t *testing.T) {
	signature := func(t *testing.T, n *node) []byte {
		b, err := os.ReadFile(n.release(t, "1.2") + ".sig")
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, c := range []struct {
		name   string
		answer func(w http.ResponseWriter, r *http.Request)
		want   string
	}{
		{"not there", http.NotFound, "not found"},
		{"an error of the server", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, "502 Bad Gateway"},
		{"cut off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100000")
			_, _ = w.Write(image("1.2")[:1000])
		}, "unexpected EOF"},
		{"longer than any", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000000000000000")
			w.WriteHeader(http.StatusOK)
		}, "more than 1 MiB"},
		{"cut off, and the server says it is all", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(image("1.2")[:1000]) }, "its signature does not fit"},
		{"without an end", func(w http.ResponseWriter, _ *http.Request) {
			for part := bytes.Repeat([]byte{1}, 1<<20); ; {
				if _, err := w.Write(part); err != nil {
					return
				}
			}
		}, "more than 1 MiB"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := standing(t)
			sig := signature(t, n)
			s := mirror(t, func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, ".sig") {
					_, _ = w.Write(sig)
					return
				}
				c.answer(w, r)
			})
			from := strings.Replace(s.URL, "http://", "http://user:secret@", 1) + "/sluice.efi?token=secret"
			if _, err := n.Install(t.Context(), from, InstallOptions{}); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%v; want %q", err, c.want)
			}
			if got, want := n.files(t), []string{"sluice_1.0.efi", "sluice_1.1.efi"}; !slices.Equal(got, want) {
				t.Errorf("there are %q, want %q", got, want)
			}
			nothingFetchedIsLeft(t, n)
		})
	}
}

func TestADownloadLeavesRoomForTheDaemon(t *testing.T) {
	s := source{dir: t.TempDir(), most: 1 << 62}
	if err := s.takes(1 << 61); err == nil || !strings.Contains(err.Error(), "bring it as a file") {
		t.Error(err)
	}
	if err := s.takes(1); err != nil {
		t.Error(err)
	}
}

func TestAFetchEndsWithItsCaller(t *testing.T) {
	n := standing(t)
	asked := make(chan struct{}, 1)
	s := mirror(t, func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	if _, err := n.Install(ctx, s.URL+"/sluice.efi", InstallOptions{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// An image that could not be believed is not fetched at all.
func TestAnUnsignedImageIsNotFetched(t *testing.T) {
	n := standing(t)
	s := mirror(t, func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, ".sig") {
			t.Errorf("%s was asked for", r.URL)
		}
		http.NotFound(w, r)
	})
	if _, err := n.Install(t.Context(), s.URL+"/sluice.efi", InstallOptions{}); !errors.Is(err, ErrUnsigned) {
		t.Error(err)
	}
}

func TestTwoDoNotChangeTheSlotsAtOnce(t *testing.T) {
	n := standing(t)
	unlock, err := n.lock(unix.LOCK_NB)
	if err != nil {
		t.Fatal(err)
	}
	_, installed := n.Install(t.Context(), n.release(t, "1.2"), InstallOptions{})
	_, rolled := n.Rollback()
	for _, err := range []error{installed, rolled} {
		if err == nil || !strings.Contains(err.Error(), "another sluice changes the slots") {
			t.Error(err)
		}
	}
	unlock()
	if _, err := n.Rollback(); err != nil {
		t.Error(err)
	}
}

func TestNoServer(t *testing.T) {
	n := standing(t)
	s := mirror(t, http.NotFound)
	s.Close()
	secrets := strings.Replace(s.URL, "http://", "http://user:secret@", 1) + "/sluice.efi?token=secret"
	if _, err := n.Install(t.Context(), secrets, InstallOptions{}); err == nil || !strings.Contains(err.Error(), "connection refused") || strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
}
