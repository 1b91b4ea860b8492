// Package site holds tests of the whole daemon, its file and its command with a kernel that has tunnels of its own. Like those of
// package guest they run inside the VM only, by the build tag vmguest. Beside the payload the VM has /bin/sluice, /usr/sbin/ip and
// strongSwan.
package site
