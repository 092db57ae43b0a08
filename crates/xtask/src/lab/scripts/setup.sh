# SPDX-License-Identifier: MIT OR Apache-2.0
# Read by the first process of each domain: file systems, programs, modules, devices.

export PATH=/lab-bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
/bin/busybox mkdir -p /proc /sys /dev /run /tmp /root /usr/sbin /usr/bin /sbin /lab
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
for dir in /dev/shm /run /tmp; do mount -t tmpfs tmpfs $dir; done
chmod 1777 /dev/shm /tmp
mkdir -p /run/lab /run/lock /var/log
ln -s /run /var/run
ln -s /run/lock /var/lock
for module in $(cat /etc/lab/modules); do
    insmod "/lib/modules/$module.ko" || echo "lab: failed: module $module"
done
ip link set lo up
# Ports to the host, by the names that QEMU was told.
mkdir -p /dev/lab
for port in /sys/class/virtio-ports/*; do
    [ -e "$port/name" ] && ln -s "/dev/${port##*/}" "/dev/lab/$(cat "$port/name")"
done
