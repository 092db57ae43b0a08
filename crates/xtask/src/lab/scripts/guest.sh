#!/bin/busybox sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# The first process of a guest: gets it ready, runs its command when all are, and says how that
# ended. All of it on the console, which goes to the host: records as in stream.rs, and output.

name=$(/bin/busybox sed 's/.*lab\.name=\([^ ]*\).*/\1/' /proc/cmdline 2>/dev/null)
if [ -z "$LAB_STARTED" ]; then
    . /etc/lab/setup
    [ -e /etc/lab/shell ] || stty -F /dev/hvc0 raw -echo
    LAB_STARTED=1 setsid sh /init </dev/null >/dev/hvc0 2>&1 &
    while :; do sleep 100000; done
fi

say() { printf '\036%s\n' "$*"; }
run() {
    say begin
    (cd /lab && exec setsid sh "$1" </dev/null)
    say "status $?"
}

hostname "$name"
if [ -e /etc/lab/network ]; then
    ip addr add "192.0.2.1${name#dom}/24" dev eth0
    ip link set eth0 up
fi
# Tells the beginning from a guest that was started again.
xenstore-exists /lab/go 2>/dev/null && again=1
lab vshmemd >/run/lab/said 2>&1 || {
    say "failed $(tr '\n' ' ' </run/lab/said)"
    exit
}
say "ready $(xenstore-read domid) $(uname -r)"
# From here on there is output; the kernel speaks up only when it dies.
dmesg -n 1
xenstore-write data/lab/ready 1

if [ -e /etc/lab/shell ]; then
    cd /lab && while :; do
        setsid sh -c 'exec sh -i </dev/hvc0 >/dev/hvc0 2>&1'
    done
elif [ -n "$again" ]; then
    xenstore-read "/lab/again/$name" >/run/lab/again 2>/dev/null && run /run/lab/again
else
    until xenstore-exists /lab/go 2>/dev/null; do sleep 0.2; done
    [ -e "/etc/lab/command-$name" ] && run "/etc/lab/command-$name"
fi
