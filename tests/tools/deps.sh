#!/bin/bash
# Installs what the tests and checks need on Debian 12 and mounts bpffs. It may run any number of times: it touches only
# what is missing, and asks nothing. With -n it changes nothing, and fails if something is missing. Further packages may be named.
set -euo pipefail

dry=
[[ ${1:-} != -n ]] || { dry=-n && shift; }

packages=(
	# compilers of the data path: one exact major version, because the committed objects must come out byte-identical
	clang-19 llvm-19 clang-format-19 libbpf-dev linux-libc-dev
	gcc libc6-dev # the race detector needs cgo
	# what the tests run: routers, tunnels, a virtual machine, filters that Sluice must live beside
	bird2 frr exabgp wireguard-tools qemu-system-x86 nftables iptables
	charon-systemd strongswan-swanctl                            # strongSwan: charon, its plugin vici
	libstrongswan-standard-plugins libcharon-extra-plugins       # openssl and gcm; kernel-libipsec
	ipset xdp-tools linux-perf openssl # rivals of the benchmarks, where their time goes, and how fast ciphers are
	iproute2 iputils-ping ethtool bpftool procps util-linux
	iperf3 curl traceroute tcpdump # real programs through the gateway
	# unpacking a kernel and its modules for the virtual machine
	xz-utils kmod
	# the node image: the tree of tools that builds it, its disk, and the firmware that boots it
	mmdebstrap python3 uidmap ovmf mtools qemu-utils
	git ca-certificates
	"$@"
)

missing=()
for p in "${packages[@]}"; do
	[[ $(dpkg-query -W -f '${db:Status-Abbrev}' "$p" 2>/dev/null || true) == ii* ]] || missing+=("$p")
done

# doing says what comes next, and stops here where it may not be done.
doing() {
	[[ $dry != -n ]] || { echo "deps: missing: $1" >&2; exit 1; }
	[[ $(id -u) == 0 ]] || { echo "deps: $1: this needs root, so run 'make deps' as root" >&2; exit 1; }
	echo "deps: $1"
}

apt() {
	DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 -qq "$@" </dev/null
}

if ((${#missing[@]})); then
	doing "installing with apt-get: ${missing[*]}"
	# Lists that are not there or too old to know a package or its current version: get them, then try again.
	apt install -y --no-install-recommends "${missing[@]}" >/dev/null 2>&1 || {
		echo "deps: apt-get update"
		apt update
		apt install -y --no-install-recommends "${missing[@]}" >/dev/null
	}
	# These packages start daemons of the machine's own. The tests start theirs in namespaces and want no others.
	for pair in bird2:bird frr:frr exabgp:exabgp charon-systemd:strongswan; do
		if [[ " ${missing[*]} " == *" ${pair%:*} "* && -d /run/systemd/system ]]; then
			systemctl disable --now "${pair#*:}.service"
		fi
	done
else
	echo "deps: everything is installed (${#packages[@]} packages)"
fi

# The tests of the virtual machine fetch a kernel with 'apt-get download', which needs the lists even if nothing was missing.
if ! compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null; then
	doing "apt-get update"
	apt update
fi

if [[ $(stat -f -c %T /sys/fs/bpf) != bpf_fs ]]; then
	doing "mounting bpffs at /sys/fs/bpf"
	mount -t bpf bpf /sys/fs/bpf
fi
