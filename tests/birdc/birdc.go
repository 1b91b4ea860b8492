// Package birdc speaks the control protocol of BIRD.
package birdc

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"time"
)

// Ask sends a command of birdc to a BIRD's socket and returns the text of the answer without its codes. BIRD's control protocol:
// lines with a four-digit code, followed by "-" or, in the last one, by a space; continued lines begin with a space. Codes 8xxx and
// 9xxx are errors, but for 8001, an empty answer.
func Ask(socket, command string) (string, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintln(conn, command); err != nil {
		return "", err
	}
	var out strings.Builder
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "0001 "): // the greeting
		case strings.HasPrefix(line, " "):
			out.WriteString(line[1:] + "\n")
		case len(line) > 4 && line[4] == ' ' && line[0] >= '8' && !strings.HasPrefix(line, "8001"):
			return "", fmt.Errorf("BIRD answers %s", line)
		case len(line) > 4:
			out.WriteString(line[5:] + "\n")
			if line[4] == ' ' {
				return out.String(), nil
			}
		}
	}
	return "", fmt.Errorf("BIRD hung up: %w", lines.Err())
}
