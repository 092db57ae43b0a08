#!/bin/busybox sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# The first process of a guest: gets it ready, runs its command when all are, and says how that
# ended. All of it on the console, which goes to the host: records as in stream.rs, and output.

if [ -z "$LAB_STARTED" ]; then
    . /etc/lab/setup
    stty -F /dev/hvc0 raw -echo
    LAB_STARTED=1 setsid sh /init </dev/null >/dev/hvc0 2>&1 &
    while :; do sleep 100000; done
fi

say() { printf '\036%s\n' "$*"; }
run() {
    (cd /lab && exec setsid sh "$1" </dev/null)
    say "status $?"
}

name=$(sed 's/.*lab\.name=\([^ ]*\).*/\1/' /proc/cmdline)
hostname "$name"
# Where what follows looks whether this is the beginning, or a guest that was started again.
xenstore-exists /lab/go 2>/dev/null && again=1
. /etc/lab/daemon
say "ready $(xenstore-read domid) $(uname -r)"
# From here on there is output; the kernel speaks up only when it dies.
dmesg -n 1
xenstore-write data/lab/ready 1

if [ -n "$again" ]; then
    if xenstore-read "/lab/again/$name" >/run/again 2>/dev/null; then
        say begin
        run /run/again
    fi
else
    until xenstore-exists /lab/go 2>/dev/null; do sleep 0.2; done
    if [ -e "/etc/lab/command-$name" ]; then
        say begin
        run "/etc/lab/command-$name"
    fi
fi
