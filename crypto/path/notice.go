package path

import "golang.org/x/sys/unix"

// OwnNotice says whether a message of rtnetlink, of a type and with a body, tells of a route of our protocol that came or went. Such a
// route never leads encrypted packets, which is what those want to know who follow the underlay: no endpoint lies in the prefixes of a
// tunnel, and where one does the routes stand in Table, which packets with the underlay's mark do not see.
func OwnNotice(kind uint16, body []byte) bool {
	const protocol = 5 // in struct rtmsg: family, dst_len, src_len, tos, table, protocol, …; a byte each
	return (kind == unix.RTM_NEWROUTE || kind == unix.RTM_DELROUTE) && len(body) > protocol && body[protocol] == Protocol
}
