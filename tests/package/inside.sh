#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# What tests/tests/package.rs does with the package, in a clean root: install, use, upgrade, remove.
# /new/old.deb and /new/newer.deb are the package in two versions, /new/hello is the program of the demo, built
# of the file that the package has. Writes what it saw, each part behind a line that begins with "==".
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
key=0x5601

part() { echo "== $*"; }
files() {
    find / -xdev \( -path /proc -o -path /dev -o -path /run -o -path /tmp -o -path /new -o -path /var/log \) -prune -o -print | sort
}
# Names of processes.
processes() { cat /proc/[0-9]*/comm | sort; }

files >/tmp/before

part install
dpkg -i /new/old.deb
missing=$(dpkg -L vshmem | while read -r file; do [ -e "$file" ] || echo "$file"; done)
[ -z "$missing" ]
getent group vshmem

part units
systemd-analyze verify --man=no vshmem-host.socket vshmem-host.service vshmemd@local.socket \
    vshmemd@local.service vshmemd.service vshmem-backend.service

part demo
vshmem run --domain beta -- true
vshmem run --domain alpha --keys $key -- /new/hello write --key $key >/tmp/alpha &
writer=$!
id=$(vshmem wait --key $key --timeout 60s)
vshmem doctor
holders() { vshmem ls --long --shmems; }

part upgrade
before=$(cat /run/vshmem/*.pid)
dpkg -i /new/newer.deb
[ "$before" = "$(cat /run/vshmem/*.pid)" ]
holders
[ "$(vshmem wait --key $key)" = "$id" ]

part reader
# A program with the newer library meets one with the older.
LD_PRELOAD=libvshmem.so VSHMEM_DOMAIN=beta VSHMEM_KEYS=$key /new/hello read --key $key

part writer
wait $writer
cat /tmp/alpha
vshmem run --domain alpha -- sh -c "kill -STOP \$\$" &
left=$!
vshmem wait --peer alpha

part remove
dpkg -r vshmem
[ ! -e /run/vshmem ]
dpkg -P vshmem
kill -KILL $left
if processes | grep vshmem; then exit 1; fi

part left
files >/tmp/after
diff /tmp/before /tmp/after || true

part end
