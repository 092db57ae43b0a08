#!/bin/busybox sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# Run by xl for a guest's network interface: puts it on the bridge.

if [ "$1" = online ]; then
    brctl addif xenbr0 "$vif" && ip link set "$vif" up
    xenstore-write "$XENBUS_PATH/hotplug-status" connected
fi
