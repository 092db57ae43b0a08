#!/bin/busybox sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# The first process of dom0: starts Xen's services and the guests, and does what the host asks for.
#
# To the host there is a virtio-serial port for control (records as in stream.rs, and commands
# from there), one for the output of dom0's own command, and one for each guest's console.

if [ -z "$LAB_STARTED" ]; then
    . /etc/lab/setup
    # The first process only waits for those that have lost their parents.
    LAB_STARTED=1 setsid sh /init </dev/null &
    while :; do sleep 100000; done
fi

exec 3<>/dev/lab/control
# A port has one opener: what `lab` has to tell goes through here.
mkfifo /run/lab/tell
cat <>/run/lab/tell >&3 &
say() { printf '\036%s\n' "$*" >/run/lab/tell; }
fail() { say "failed $*"; exec sleep 1000000000; }

say "booted $(uname -r)"
mkdir -p /run/xen /run/xenstored /var/lib/xen /var/lib/xenstored /var/log/xen/console
for guest in $(cat /etc/lab/guests); do
    ln -s "/dev/lab/$guest" "/var/log/xen/console/guest-$guest.log"
done
xenstored --pid-file /run/xenstored.pid || fail "xenstored does not start"
tries=0
until xenstore-exists / 2>/dev/null; do
    tries=$((tries + 1))
    [ $tries -lt 300 ] || fail "xenstored does not answer"
    sleep 0.1
done
xen-init-dom0 >/var/log/xen/init-dom0 2>&1 || fail "xen-init-dom0: $(cat /var/log/xen/init-dom0)"
xenconsoled --log=guest --log-dir=/var/log/xen/console || fail "xenconsoled does not start"
say "xen $(xl info xen_version)"

. /etc/lab/daemon

for guest in $(cat /etc/lab/guests); do
    lab create "$guest" >/run/create 2>&1 || fail "$guest: $(tr '\n' ' ' </run/create)"
done

# A domain that goes away is told of, so that nobody waits for it.
xenstore-watch @releaseDomain | while read -r _; do
    for guest in $(cat /etc/lab/guests); do
        id=$(cat "/run/lab/$guest" 2>/dev/null) || continue
        xenstore-exists "/local/domain/$id" 2>/dev/null && continue
        rm -f "/run/lab/$guest"
        say "gone $guest $id"
    done
done &

while read -r command <&3; do
    case $command in
    go)
        xenstore-write /lab/go 1
        xenstore-chmod /lab/go r0
        [ -e /etc/lab/command-dom0 ] && (
            exec 4>/dev/lab/dom0
            cd /lab && setsid sh /etc/lab/command-dom0 3>&- 4>&- </dev/null >&4 2>&1
            printf '\036status %s\n' $? >&4
        ) &
        ;;
    count) lab count ;;
    end)
        poweroff -f
        ;;
    esac
done
