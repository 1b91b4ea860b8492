package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// CaptureRequest says which packets to capture: those that fit all of its fields. What is empty asks for nothing.
type CaptureRequest struct {
	Fate      string   `json:"fate,omitempty"`      // FateDropped or FatePassed
	Reasons   []string `json:"reasons,omitempty"`   // any of them
	Rules     []string `json:"rules,omitempty"`     // any of them, as policy/name
	Host      string   `json:"host,omitempty"`      // address or prefix: source or destination
	Interface string   `json:"interface,omitempty"` // where the packet is judged
	Hook      string   `json:"hook,omitempty"`      // xdp, tcx-ingress, tcx-egress
	Protocol  string   `json:"protocol,omitempty"`  // name or number
	Port      uint16   `json:"port,omitempty"`      // source or destination
	Sample    int      `json:"sample,omitempty"`    // one in so many, on each CPU
	Snaplen   int      `json:"snaplen,omitempty"`   // bytes of a frame at most
	By        string   `json:"by,omitempty"`        // whoever wants to capture next is told
}

// The words of CaptureRequest.Fate.
const (
	FateDropped = "dropped"
	FatePassed  = "passed" // what was not dropped
)

// CaptureEventType says which field of a CaptureEvent is set.
type CaptureEventType string

// The types of events of a capture.
const (
	CaptureBegin CaptureEventType = "begin" // ID; the first one: packets from here on
	CaptureFrame CaptureEventType = "frame" // Frame
	CaptureEnded CaptureEventType = "end"   // Count; the last one
)

// CaptureEvent is what a capture tells.
type CaptureEvent struct {
	Type  CaptureEventType `json:"type"`
	ID    uint64           `json:"id,omitempty"`
	Frame *Frame           `json:"frame,omitempty"`
	Count *CaptureCount    `json:"count,omitempty"`
}

// Frame is one captured packet, as its hook left it.
type Frame struct {
	Time      time.Time `json:"time"`
	Hook      string    `json:"hook"` // xdp, tcx-ingress, tcx-egress
	Interface string    `json:"interface"`
	Fate      string    `json:"fate"` // pass, drop, stack, answer, redirect
	Reason    string    `json:"reason"`
	Rule      string    `json:"rule,omitempty"` // policy/name, where one decided
	File      string    `json:"file,omitempty"` // where the rule stands
	Line      int       `json:"line,omitempty"`
	Ban       string    `json:"ban,omitempty"`    // the target, where one dropped it
	Filter    string    `json:"filter,omitempty"` // neighbor and rule, where one of a BGP neighbor dropped it
	IP        bool      `json:"ip,omitempty"`     // begins with its IP header, not with an Ethernet header
	Length    int       `json:"length"`           // bytes that it had
	Data      []byte    `json:"data"`             // of them, from the beginning
}

// CaptureCount says, of the packets that were asked for, how many there were and why some are not in the stream.
type CaptureCount struct {
	Wanted     uint64 `json:"wanted"`
	Suppressed uint64 `json:"suppressed"` // there were too many at once
	Lost       uint64 `json:"lost"`       // the reader was too slow
}

// CaptureEnd names a capture that is to end.
type CaptureEnd struct {
	ID uint64 `json:"id"`
}

// captureLinger is how long a capture that was asked to end may take to tell what it still has.
const captureLinger = 5 * time.Second

// errEnded is the good end of a capture, on its way through follow.
var errEnded = errors.New("the capture has ended")

// Capture calls each for every event. When ctx ends it asks the daemon to end the capture, and goes on to the last event,
// which is a good end and no error. Others are an error of each, and the end of the daemon (ErrUnreachable).
func (c *Client) Capture(ctx context.Context, in CaptureRequest, each func(CaptureEvent) error) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	reading, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var id atomic.Uint64
	defer context.AfterFunc(ctx, func() {
		if id.Load() == 0 || c.endCapture(reading, id.Load()) != nil {
			cancel()
			return
		}
		select {
		case <-reading.Done():
		case <-time.After(captureLinger):
			cancel()
		}
	})()
	err = follow(reading, c, http.MethodPost, "capture", bytes.NewReader(body), func(e CaptureEvent) error {
		if e.Type == CaptureBegin {
			id.Store(e.ID)
			if ctx.Err() != nil { // it ended when there was nothing to end
				return ctx.Err()
			}
		}
		if err := each(e); err != nil {
			return err
		}
		if e.Type == CaptureEnded {
			return errEnded
		}
		return nil
	})
	if errors.Is(err, errEnded) {
		return nil
	}
	return err
}

func (c *Client) endCapture(ctx context.Context, id uint64) error {
	_, err := post[struct{}](ctx, c, "capture/end", CaptureEnd{ID: id})
	return err
}

func (s *Server) capture(w http.ResponseWriter, r *http.Request) {
	var in CaptureRequest
	body := http.MaxBytesReader(w, r.Body, s.maxBody)
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		s.write(w, nil, &Failure{Message: "the request is not understood: " + err.Error(), Refused: true})
		return
	}
	_, _ = io.Copy(io.Discard, body) // only behind its end does the server see the client go
	stream(s, w, r, func(ctx context.Context, each func(CaptureEvent) error) error {
		return s.backend.Capture(ctx, in, each)
	})
}
