#!/bin/busybox sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# The first process of dom0: starts Xen's services and the guests, and does what the host asks for.
#
# To the host there is a virtio-serial port for control (records as in stream.rs, and commands
# from there), one for the output of dom0's own command, and one for each guest's console.

if [ -z "$LAB_STARTED" ]; then
    . /etc/lab/setup
    mount -t xenfs xenfs /proc/xen
    # The first process only waits for those that have lost their parents.
    LAB_STARTED=1 setsid sh /init </dev/null &
    while :; do sleep 100000; done
fi

exec 3<>/dev/lab/control
# A port has one opener: what all others have to tell goes through here.
mkfifo /run/lab/tell
cat <>/run/lab/tell >&3 &
say() { printf '\036%s\n' "$*" >/run/lab/tell; }
fail() {
    say "failed $*"
    # For an interactive look around, which hears nothing of that.
    echo "lab: $*"
    exec sleep 1000000000
}
guests=$(cat /etc/lab/guests)
hostname dom0

say "booted $(uname -r)"
mkdir -p /run/xen /run/xenstored /var/lib/xen /var/lib/xenstored /var/log/xen/console
for guest in $guests; do
    ln -s "/dev/lab/$guest" "/var/log/xen/console/guest-$guest.log"
done
xenstored --pid-file /run/xenstored.pid || fail "xenstored does not start"
tries=0
until xenstore-exists / 2>/dev/null; do
    tries=$((tries + 1))
    [ $tries -lt 300 ] || fail "xenstored does not answer"
    sleep 0.1
done
xen-init-dom0 >/run/lab/said 2>&1 || fail "xen-init-dom0: $(tr '\n' ' ' </run/lab/said)"
xenstore-write /lab/domid/dom0 0
xenstore-chmod /lab/domid/dom0 r0
xenconsoled --log=guest --log-dir=/var/log/xen/console || fail "xenconsoled does not start"
if [ -e /etc/lab/network ]; then
    brctl addbr xenbr0 && ip addr add 192.0.2.1/24 dev xenbr0 && ip link set xenbr0 up ||
        fail "no bridge"
fi
lab vshmemd >/run/lab/said 2>&1 || fail "$(tr '\n' ' ' </run/lab/said)"

# Keeps record of which guest has which number.
{
    xenstore-watch @introduceDomain &
    xenstore-watch @releaseDomain
} | while read -r _; do
    for guest in $guests; do
        was=$(cat "/run/lab/$guest" 2>/dev/null)
        is=$(xl domid "$guest" 2>/dev/null)
        [ "$was" = "$is" ] && continue
        if [ -n "$was" ]; then
            rm "/run/lab/$guest"
            xenstore-rm "/lab/domid/$guest"
            say "gone $guest $was"
        fi
        if [ -n "$is" ]; then
            echo "$is" >"/run/lab/$guest"
            xenstore-write "/lab/domid/$guest" "$is"
            xenstore-chmod "/lab/domid/$guest" r0
        fi
    done
done &

for guest in $guests; do
    xl create -q "/etc/xen/$guest.cfg" >/run/lab/said 2>&1 ||
        fail "$guest is not built: $(tr '\n' ' ' </run/lab/said)"
done

if [ -e /etc/lab/shell ]; then
    dmesg -n 1
    cat /etc/lab/shell
    cd /lab && setsid sh -c 'exec sh -i </dev/hvc0 >/dev/hvc0 2>&1'
    poweroff -f
fi

while read -r command <&3; do
    case $command in
    go)
        xenstore-write /lab/go 1
        xenstore-chmod /lab/go r0
        [ -e /etc/lab/command-dom0 ] && (
            exec 4>/dev/lab/dom0
            cd /lab
            setsid sh /etc/lab/command-dom0 </dev/null >&4 2>&1 3>&- 4>&-
            printf '\036status %s\n' $? >&4
        ) &
        ;;
    count) lab count ;;
    end) poweroff -f ;;
    esac
done
