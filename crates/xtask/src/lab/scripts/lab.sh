#!/bin/busybox sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# lab: what commands in the domains can ask of the lab.
#
#   In every domain:
#     lab say NAME             tell the others that something has happened
#     lab await DOMAIN NAME    wait until DOMAIN (dom0, dom1, ...) has said it
#   In dom0:
#     lab domid DOMAIN         its number
#     lab destroy DOMAIN       destroy a guest; its command, if under way, is not judged
#     lab create DOMAIN [CMD]  start a guest that is gone, wait until it is ready; with CMD,
#                              which is judged as the others are, run that in it
#     lab count                have Xen count grants and event channels

usage() { sed -n 's/^# \{0,1\}//; 5,$p; 15q' "$0" >&2; exit 2; }
say() { printf '\036%s\n' "$*" >/run/lab/tell; }
own=$(xenstore-read domid 2>/dev/null || echo 0)

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

case $1 in
say)
    [ $# = 2 ] || usage
    node=/local/domain/$own/data/lab/$2
    xenstore-write "$node" 1 && xenstore-chmod "$node" "r$own"
    ;;
await)
    [ $# = 3 ] || usage
    await "/lab/domid/$2"
    await "/local/domain/$(domid "$2")/data/lab/$3"
    ;;
domid)
    [ $# = 2 ] || usage
    domid "$2"
    ;;
destroy)
    [ $# = 2 ] || usage
    say "unjudged $2"
    xl destroy "$2"
    ;;
create)
    [ $# = 2 ] || [ $# = 3 ] || usage
    xenstore-rm "/lab/again/$2" 2>/dev/null
    if [ $# = 3 ]; then
        xenstore-write "/lab/again/$2" "$3" || exit
        xenstore-chmod "/lab/again/$2" r0
    fi
    again=$(xenstore-read /lab/go 2>/dev/null)
    xl create -q "/etc/xen/$2.cfg" || exit
    id=$(xl domid "$2") || exit
    echo "$id" >"/run/lab/$2"
    xenstore-write "/lab/domid/$2" "$id"
    xenstore-chmod "/lab/domid/$2" r0
    say "created $2 $id ${3:+again}"
    [ -z "$again" ] || await "/local/domain/$id/data/lab/ready"
    ;;
count)
    # Both write to Xen's console, and so does what says that they have.
    xl debug-keys g && xl debug-keys e
    echo "lab: counted" >/dev/console
    ;;
*) usage ;;
esac
