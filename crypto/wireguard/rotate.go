package wireguard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"sluice/crypto/keys"
)

// ErrNotTaken says that peers did not take a new key, and that the old one is in use again.
var ErrNotTaken = errors.New("peers did not take the new key")

const (
	// rotateTime is how long peers have to take a new key, during which traffic is held.
	rotateTime = 3 * time.Second
	// rotateGrace is how long, after its handshake, a peer has at least to move its prefixes to the new key. What arrives by
	// the old session cannot be told from what comes by the new one: what was under way is not counted, for rotateSettle.
	// A peer that has spoken before that, and not since, is believed after rotateLate.
	rotateSettle = 300 * time.Millisecond
	rotateGrace  = time.Second
	rotateLate   = 1700 * time.Millisecond
	rotatePoll   = 50 * time.Millisecond
	// goBackTime is how long, after a failure, the old key's sessions are waited for.
	goBackTime = 2 * time.Second

	handshakeBytes = 92 // of a handshake's answer, which counts as received
)

// Rotate gives a tunnel the key of the file next, which its peers know already as a second one of this node. What is sent
// meanwhile waits, for at most three seconds, and what is received goes on, so that nothing is lost. Every peer with a session must
// answer, or the old key comes back and the error, ErrNotTaken, names who did not. In the end next has become the
// tunnel's key file, and what that held is kept beside it as FILE.old; then the caller compiles again. A file behind a link
// is changed where it is.
//
// The end of ctx, or Stop, brings the old key back as well; the error is then context.Canceled or ctx's.
func (d *Driver) Rotate(ctx context.Context, tunnel, next string) error {
	r, err := d.beginRotation(tunnel, next)
	if err != nil {
		return fmt.Errorf("new key of tunnel %s: %w", tunnel, err)
	}
	defer d.rotations.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.stopping, cancel)()
	err = r.run(ctx)
	d.mu.Lock()
	delete(d.rotating, tunnel)
	d.mu.Unlock()
	if err != nil {
		return fmt.Errorf("new key of tunnel %s: %w", tunnel, err)
	}
	d.log.Info("key of tunnel changed", "tunnel", tunnel, "public_key", encodeKey(r.new.PublicKey()), "peers", len(r.waiting))
	return nil
}

// rotation is one change of a key.
type rotation struct {
	d          *Driver
	tunnel     string
	dev        device
	file, next string
	advance    func() (changed bool, err error) // makes next file; both as keys.Files.Advance says
	old, new   wgtypes.Key                      // secrets
	waiting    map[wgtypes.Key]*rotationPeer
}

// rotationPeer is a peer with a session: what was known of it before, and when it answered to the new key.
type rotationPeer struct {
	name     string
	before   wgtypes.Peer
	answered time.Time // zero: not yet
	settled  int64     // bytes that were received when what was under way had come; 0: not yet
	taken    bool
}

func (d *Driver) beginRotation(tunnel, next string) (*rotation, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.stopping.Err(); err != nil {
		return nil, err
	}
	link, err := d.links.Find(tunnel)
	if err != nil {
		return nil, err
	}
	dev, err := d.running(link)
	if err != nil {
		return nil, err
	}
	note := d.notes[tunnel]
	if note == nil || note.keyFile == "" {
		return nil, errors.New("its key file is not known: apply first")
	}
	if _, running := d.rotating[tunnel]; running {
		return nil, errors.New("it is being changed already")
	}
	files := keys.FilesOf(note.keyFile)
	files.Next = next
	r := &rotation{d: d, tunnel: tunnel, dev: dev, file: files.Present, next: next, advance: files.Advance, waiting: map[wgtypes.Key]*rotationPeer{}}
	have, err := dev.state()
	if err != nil {
		return nil, err
	}
	if err := r.load(have); err != nil {
		return nil, err
	}
	d.rotating[tunnel] = encodeKey(have.PublicKey)
	d.rotations.Add(1)
	return r, nil
}

// load reads both keys, and notes the peers that have a session.
func (r *rotation) load(have *wgtypes.Device) error {
	for _, k := range []struct {
		file string
		into *wgtypes.Key
	}{{r.file, &r.old}, {r.next, &r.new}} {
		key, err := keys.Load(k.file)
		if err != nil {
			return err
		}
		*k.into = key.Bytes()
	}
	// Public keys are compared: a device clears bits of a private one.
	switch have.PublicKey {
	case r.new.PublicKey():
		return fmt.Errorf("%s holds the key that is in use", r.next)
	case r.old.PublicKey():
	default:
		return fmt.Errorf("its key is not that of %s: apply first", r.file)
	}
	for _, p := range have.Peers {
		name := peerName(Peer{Name: r.d.notes.of(r.tunnel, encodeKey(p.PublicKey)).name, PublicKey: encodeKey(p.PublicKey)})
		if p.PublicKey == r.new.PublicKey() {
			return fmt.Errorf("%s holds the key of peer %s", r.next, name)
		}
		if p.Endpoint != nil && time.Since(p.LastHandshakeTime) < sessionLife {
			r.waiting[p.PublicKey] = &rotationPeer{name: name, before: p}
		}
	}
	return nil
}

// run holds traffic from before the new key until it is taken, or the old one is back.
func (r *rotation) run(ctx context.Context) error {
	if err := r.locked(r.dev.hold); err != nil {
		return err
	}
	defer func() {
		if err := r.locked(r.dev.release); err != nil {
			r.d.log.Error("release what was held", "tunnel", r.tunnel, "error", err)
		}
	}()
	err := r.use(r.new)
	if err == nil {
		err = r.await(ctx)
	}
	if err == nil {
		err = r.keep()
	}
	if err != nil {
		err = errors.Join(err, r.goBack(context.WithoutCancel(ctx)))
	}
	return err
}

// goBack sets the old key, and waits for its sessions: what is released before that has little room to wait in the device.
// The key is set even where the device cannot be read.
func (r *rotation) goBack(ctx context.Context) error {
	have, err := r.state()
	if err != nil {
		return errors.Join(err, r.use(r.old))
	}
	for _, p := range have.Peers {
		if w := r.waiting[p.PublicKey]; w != nil {
			*w = rotationPeer{name: w.name, before: p}
		}
	}
	if err := r.use(r.old); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, goBackTime)
	defer cancel()
	// A peer that does not answer has been lost for other reasons, and keeps nobody waiting.
	_, _ = r.until(ctx, func(w *rotationPeer, _ wgtypes.Peer) bool { return !w.answered.IsZero() })
	return nil
}

func (r *rotation) locked(f func() error) error {
	r.d.mu.Lock()
	defer r.d.mu.Unlock()
	return f()
}

// use sets a key and greets all peers that had a session. The device goes on receiving by the sessions that it has.
func (r *rotation) use(key wgtypes.Key) error {
	return r.locked(func() error {
		if err := r.dev.configure(wgtypes.Config{PrivateKey: &key}); err != nil {
			return err
		}
		var list []wgtypes.Key
		for k := range r.waiting {
			list = append(list, k)
		}
		if len(list) == 0 {
			return nil
		}
		return r.dev.poke(list...)
	})
}

// await waits until every peer has taken the new key.
func (r *rotation) await(ctx context.Context) error {
	within, cancel := context.WithTimeout(ctx, rotateTime)
	defer cancel()
	missing, err := r.until(within, func(w *rotationPeer, now wgtypes.Peer) bool {
		if w.answered.IsZero() {
			return false
		}
		since := time.Since(w.answered)
		if w.settled == 0 && since >= rotateSettle {
			w.settled = now.ReceiveBytes
		}
		spoke := now.ReceiveBytes > w.before.ReceiveBytes+handshakeBytes
		speaks := w.settled != 0 && now.ReceiveBytes > w.settled
		return speaks && since >= rotateGrace || spoke && since >= rotateLate
	})
	if err == nil && len(missing) > 0 && ctx.Err() != nil {
		return fmt.Errorf("given up before its peers had taken it: %w", ctx.Err())
	}
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("%w: %s; the old one is in use again; let them have %s as a second key of this node",
			ErrNotTaken, strings.Join(missing, ", "), encodeKey(r.new.PublicKey()))
	}
	return err
}

// until polls the peers that had a session until done was true of each once, and names those of whom it never was when ctx
// has ended: they are read once more then, for what came about since the last time.
func (r *rotation) until(ctx context.Context, done func(w *rotationPeer, now wgtypes.Peer) bool) (missing []string, err error) {
	tick := time.NewTicker(rotatePoll)
	defer tick.Stop()
	for ended := false; ; {
		have, err := r.state()
		switch {
		case err != nil && ended:
			return missing, nil
		case err != nil:
			return nil, err
		}
		missing = nil
		for _, p := range have.Peers {
			w := r.waiting[p.PublicKey]
			if w == nil {
				continue
			}
			if w.answered.IsZero() && p.LastHandshakeTime.After(w.before.LastHandshakeTime) {
				w.answered = time.Now()
			}
			if w.taken = w.taken || done(w, p); !w.taken {
				missing = append(missing, w.name)
			}
		}
		slices.Sort(missing)
		if len(missing) == 0 || ended {
			return missing, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			ended = true
		}
	}
}

func (r *rotation) state() (have *wgtypes.Device, err error) {
	err = r.locked(func() (err error) {
		have, err = r.dev.state()
		return err
	})
	return have, err
}

// keep makes the next file the tunnel's. Only where that did not come about it is an error: what the file holds and what the
// device has are the same, or a restart would set another key.
func (r *rotation) keep() error {
	changed, err := r.advance()
	if changed && err != nil {
		r.d.log.Warn("the tunnel has its new key, which a power cut may take back: leave the old one at the other ends until the disk is sound",
			"tunnel", r.tunnel, "error", err)
		return nil
	}
	return err
}
