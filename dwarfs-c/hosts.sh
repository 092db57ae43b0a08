#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# hosts.sh DIR ARGUMENTS...: laplace-hybrid of DIR on two hosts with two workers each, MPI between
# the hosts and System V shared memory within. The hosts are network namespaces of this machine,
# with a cable between them, which are made here and removed: it needs root.
#
# It takes Open MPI: make OUT=DIR MPICC=mpicc.openmpi DIR/laplace-hybrid. Over TCP, MPI_Finalize of
# MPICH with UCX (4.0.2, Debian 12) waits in every tenth run for a peer that has stopped listening:
# https://github.com/pmodels/mpich/pull/6596
#
# RUN_0 and RUN_1 are put before the workers of a host, as in check.sh, and before these HOST_1 and
# HOST_2 on the first and the second host.
set -u
if [ $# -lt 1 ] || [ "$(id -u)" -ne 0 ]; then
	echo "usage: hosts.sh DIR ARGUMENTS...   as root; DIR has laplace-hybrid" >&2
	exit 2
fi
program=$1/laplace-hybrid
shift
MPIRUN=${MPIRUN:-mpirun.openmpi}
# Names and keys that no other run of this script uses.
first=host1-$$
second=host2-$$
key=$((0x56000000 | ($$ & 0xffff) << 8))
address=10.86.86
tmp=$(mktemp -d)

clean() {
	ip netns del "$first" 2>/dev/null
	ip netns del "$second" 2>/dev/null
	rm -rf "$tmp"
}
trap clean EXIT
trap 'exit 1' HUP INT TERM

set_up() {
	ip netns add "$first" &&
		ip netns add "$second" &&
		ip -n "$first" link add eth0 type veth peer name eth0 netns "$second" &&
		ip -n "$first" address add $address.1/24 dev eth0 &&
		ip -n "$second" address add $address.2/24 dev eth0 &&
		ip -n "$first" link set lo up &&
		ip -n "$second" link set lo up &&
		ip -n "$first" link set eth0 up &&
		ip -n "$second" link set eth0 up
}
set_up || exit 1
# A cable that has just been plugged in at both ends is known to work a moment later.
for host in "$first" "$second"; do
	until ip -n "$host" link show eth0 | grep -q "state UP"; do
		sleep 0.05
	done
done

# What mpirun, which runs on the first host, takes for ssh to the second.
cat >"$tmp/launch" <<END
#!/bin/sh
while [ "\$1" != $address.2 ]; do
	shift
done
shift
exec ip netns exec $second sh -c "\$*"
END
chmod +x "$tmp/launch"

ip netns exec "$first" ${HOST_1:-} ${RUN_1:-} "$program" --rank 1 --of 2 --key $key "$@" &
worker_1=$!
ip netns exec "$second" ${HOST_2:-} ${RUN_1:-} "$program" --rank 1 --of 2 --key $((key + 1)) "$@" &
worker_2=$!
ip netns exec "$first" $MPIRUN --allow-run-as-root --mca plm_rsh_agent "$tmp/launch" \
	--mca oob_tcp_if_include eth0 --mca pml ob1 --mca btl tcp,self --mca btl_tcp_if_include eth0 \
	--bind-to none \
	-np 1 --host $address.1 ${HOST_1:-} ${RUN_0:-} "$program" --rank 0 --of 2 --key $key "$@" : \
	-np 1 --host $address.2 ${HOST_2:-} ${RUN_0:-} "$program" --rank 0 --of 2 --key $((key + 1)) "$@"
ended=$?
[ $ended -eq 0 ] || kill $worker_1 $worker_2
wait $worker_1 || ended=1
wait $worker_2 || ended=1
exit $ended
