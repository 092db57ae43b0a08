#!/bin/busybox sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# lab: what commands in the domains can ask of the lab.
#
#   In every domain:
#     lab say NAME             tell the others that something has happened
#     lab await DOMAIN NAME    wait until DOMAIN (dom0, dom1, ...) has said it
#     lab vshmemd              start this domain's vshmemd, anew if it runs; wait until it is ready
#   In dom0:
#     lab domid DOMAIN         its number
#     lab destroy DOMAIN       destroy a guest; its command, if under way, is not judged
#     lab create DOMAIN [CMD]  start a guest that is gone, wait until it is ready; with CMD,
#                              have sh run that in it, judged as the others are
#     lab count                have Xen count grants and event channels

usage() {
    sed -n '/^# lab:/,/^$/s/^# \{0,1\}//p' "$0" >&2
    exit 2
}
tell() { printf '\036%s\n' "$*" >/run/lab/tell; }

# The number of a domain; none if there is no such domain.
domid() {
    if [ "$1" = dom0 ]; then echo 0; else xenstore-read "/lab/domid/$1" 2>/dev/null; fi
}

# Waits until a node exists.
await() {
    xenstore-exists "$1" 2>/dev/null && return
    events=/run/lab/events.$$
    mkfifo "$events"
    xenstore-watch "$1" >"$events" &
    # The first event comes at once, so that nothing is missed between.
    while read -r _; do
        xenstore-exists "$1" 2>/dev/null && break
    done <"$events"
    kill $!
    rm "$events"
}

# Starts vshmemd with its log on standard output, in records, and in a file.
vshmemd_anew() {
    [ -e /etc/lab/vshmemd ] || return 0
    if was=$(cat /run/lab/vshmemd 2>/dev/null); then
        kill "$was" 2>/dev/null
        while [ -e "/proc/$was" ]; do sleep 0.1; done
    fi
    mkdir -p /run/vshmem
    rm -f /run/lab/ready /run/lab/log
    mkfifo /run/lab/ready /run/lab/log
    out=/dev/hvc0
    [ -e /run/lab/tell ] && out=/run/lab/tell
    # Nothing that goes on keeps the caller's output open.
    tee -a /var/log/vshmemd.log </run/lab/log 2>/dev/null |
        awk '{ print "\036log " $0; fflush() }' >$out 2>/dev/null &
    logger=$!
    setsid vshmemd $(cat /etc/lab/vshmemd) --ready-fd 5 \
        </dev/null >/run/lab/log 2>&1 5>/run/lab/ready &
    echo $! >/run/lab/vshmemd
    read -r ready </run/lab/ready
    [ "$ready" = ready ] && return
    wait $logger
    echo "vshmemd does not start:"
    tail -n 5 /var/log/vshmemd.log
    return 1
}

case $1-$# in
say-2)
    own=$(xenstore-read domid 2>/dev/null || echo 0)
    node=/local/domain/$own/data/lab/$2
    xenstore-write "$node" 1 && xenstore-chmod "$node" "r$own"
    ;;
await-3)
    await "/lab/domid/$2"
    await "/local/domain/$(domid "$2")/data/lab/$3"
    ;;
vshmemd-1) vshmemd_anew ;;
domid-2) domid "$2" ;;
destroy-2)
    tell "unjudged $2"
    xl destroy "$2"
    ;;
create-[23])
    xenstore-rm "/lab/again/$2" 2>/dev/null
    if [ $# = 3 ]; then
        xenstore-write "/lab/again/$2" "$3" && xenstore-chmod "/lab/again/$2" r0 || exit
        tell "again $2"
    fi
    xl create -q "/etc/xen/$2.cfg" && id=$(xl domid "$2") || exit
    xenstore-exists /lab/go 2>/dev/null && await "/local/domain/$id/data/lab/ready"
    ;;
count-1)
    # Both write to Xen's console, and so does what says that they have.
    xl debug-keys g && xl debug-keys e
    echo "lab: counted" >/dev/console
    ;;
*) usage ;;
esac
