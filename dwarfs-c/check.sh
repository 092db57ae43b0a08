#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# check.sh DIR: runs each variant of each program in DIR on a small problem and compares what it
# says with the serial one, and with the exact value where there is one. `make check` calls it.
#
# RUN_0 and RUN_1 are put before the programs that use System V: workers with an even number get
# the first, those with an odd one the second, and those that fork the others the first. Where they
# are set, programs that do not use System V are left out.
set -u
bin=$1
RUN_0=${RUN_0:-}
RUN_1=${RUN_1:-}
all=true
[ -z "$RUN_0$RUN_1" ] || all=false
MPIEXEC=${MPIEXEC:-mpiexec.mpich}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
passed=0
failed=0
runs=0

# A key that no other run of this script uses.
next_key() {
	runs=$((runs + 1))
	key=$((0x56000000 | ($$ & 0xffff) << 8 | (runs & 0xff)))
}

# verdict STATUS WHAT: counts it, and says what failed.
verdict() {
	if [ "$1" -eq 0 ]; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "FAILED: $2"
	fi
}

# The last line, and the status.
sum_up() {
	echo "check: $passed passed, $failed failed"
	[ $failed -eq 0 ]
}

# agrees TOLERANCE WHAT: compares each "name = value" of $tmp/serial with that of $tmp/out:
# differences are relative to the value, or absolute for values below 1.
agrees() {
	awk -F ' = ' -v tolerance="$1" '
		NF != 2 { next }
		NR == FNR { want[$1] = $2; names++; next }
		{
			scale = want[$1] < 0 ? -want[$1] : want[$1]
			off = $2 - want[$1]
			if (off < 0)
				off = -off
			if (!($1 in want) || !(off <= tolerance * (scale > 1 ? scale : 1))) {
				print $1 " is " $2 " and not " want[$1]
				bad = 1
			}
			seen++
		}
		END { exit bad || !names || seen != names }
	' "$tmp/serial" "$tmp/out"
	verdict $? "$2 agrees with the serial one"
}

# at_most LIMIT NAME WHAT: whether the value of that name in $tmp/out is at most LIMIT.
at_most() {
	awk -F ' = ' -v limit="$1" -v name="$2" '
		$1 == name { found = 1; bad = !($2 <= limit) }
		END { exit bad || !found }
	' "$tmp/out"
	verdict $? "$3: $2 is at most $1"
}

# ends_well WHAT COMMAND...: the command's output is in $tmp/out.
ends_well() {
	what=$1
	shift
	"$@" >"$tmp/out"
	status=$?
	[ $status -eq 0 ] || cat "$tmp/out"
	verdict $status "$what ends well"
}

# by_hand WORKERS PROGRAM ARGUMENTS...: each worker is started alone.
by_hand() {
	workers=$1
	program=$2
	shift 2
	next_key
	pids=
	rank=$((workers - 1))
	while [ $rank -gt 0 ]; do
		run=$RUN_0
		[ $((rank % 2)) -eq 0 ] || run=$RUN_1
		$run "$bin/$program" --rank $rank --of "$workers" --key $key "$@" >/dev/null &
		pids="$pids $!"
		rank=$((rank - 1))
	done
	$RUN_0 "$bin/$program" --rank 0 --of "$workers" --key $key "$@"
	ended=$?
	for pid in $pids; do
		wait "$pid" || ended=1
	done
	return $ended
}

# hybrid HOSTS WORKERS ARGUMENTS...: teams of processes on as many hosts, all of which are this one.
hybrid() {
	hosts=$1
	workers=$2
	shift 2
	pids=
	leaders=
	host=0
	while [ $host -lt "$hosts" ]; do
		next_key
		rank=$((workers - 1))
		while [ $rank -gt 0 ]; do
			run=$RUN_0
			[ $((rank % 2)) -eq 0 ] || run=$RUN_1
			$run "$bin/laplace-hybrid" --rank $rank --of "$workers" --key $key "$@" \
				>/dev/null &
			pids="$pids $!"
			rank=$((rank - 1))
		done
		leaders="$leaders${leaders:+ : }-n 1 $RUN_0 $bin/laplace-hybrid --rank 0 --of $workers --key $key $*"
		host=$((host + 1))
	done
	$MPIEXEC $leaders
	ended=$?
	for pid in $pids; do
		wait "$pid" || ended=1
	done
	return $ended
}

# variants TOLERANCE DWARF ARGUMENTS...: all of them, with more workers than one and with a number
# of workers by which the work cannot be divided.
variants() {
	tolerance=$1
	dwarf=$2
	shift 2
	"$bin/$dwarf-serial" "$@" >"$tmp/serial"
	verdict $? "$dwarf-serial $* ends well"
	for workers in 2 3; do
		for wait in spin semaphore; do
			team="--wait $wait"
			ends_well "$dwarf-sysv, $workers forked, $team, $*" \
				$RUN_0 "$bin/$dwarf-sysv" --workers $workers $team "$@"
			agrees "$tolerance" "$dwarf-sysv, $workers forked, $team, $*"
			ends_well "$dwarf-sysv, $workers by hand, $team, $*" \
				by_hand $workers "$dwarf-sysv" $team "$@"
			agrees "$tolerance" "$dwarf-sysv, $workers by hand, $team, $*"
		done
		$all || continue
		ends_well "$dwarf-openmp, $workers threads, $*" \
			"$bin/$dwarf-openmp" --workers $workers "$@"
		agrees "$tolerance" "$dwarf-openmp, $workers threads, $*"
		ends_well "$dwarf-mpi, $workers processes, $*" \
			$MPIEXEC -n $workers "$bin/$dwarf-mpi" "$@"
		agrees "$tolerance" "$dwarf-mpi, $workers processes, $*"
	done
}

# pair PROGRAM ARGUMENTS...: both sides, which check what they get themselves.
pair() {
	program=$1
	shift
	next_key
	$RUN_1 "$bin/$program" --id 1 --key $key "$@" >/dev/null &
	$RUN_0 "$bin/$program" --id 0 --key $key "$@"
	ended=$?
	wait $! || ended=1
	return $ended
}

# sockets KIND ARGUMENTS...: both sides of Socket.
sockets() {
	kind=$1
	shift
	mkfifo "$tmp/said"
	if [ "$kind" = tcp ] || [ "$kind" = udp ]; then
		"$bin/socket" "$kind" server --port 0 "$@" >"$tmp/said" &
		read -r _ _ _ port <"$tmp/said"
		at="--port $port"
	else
		"$bin/socket" "$kind" server --path "$tmp/way" "$@" >"$tmp/said" &
		read -r _ <"$tmp/said"
		at="--path $tmp/way"
	fi
	"$bin/socket" "$kind" client $at "$@"
	ended=$?
	wait $! || ended=1
	rm "$tmp/said"
	return $ended
}

# refused PROGRAM ARGUMENTS...: wrong arguments get a usage line, and status 2.
refused() {
	"$bin/$1" $2 >/dev/null 2>"$tmp/out" </dev/null
	[ $? -eq 2 ] && grep -q "^usage: " "$tmp/out"
	verdict $? "$1 $2 is refused with a usage line"
}

for program in sync semsync msgsync; do
	ends_well "$program" pair $program --size 1000 --iters 500 --batches 5
done
ends_well costs pair costs --size 10000 --iters 20
for kind in tcp udp unix pipe; do
	$all || continue
	ends_well "socket $kind" sockets $kind --size 1000 --iters 100
done

# Sums in another order differ in their last digits, of which float has about seven.
for level in 1 2 3; do
	variants 1e-12 blas$level --size 37 --iters 3
	variants 1e-5 blas$level --size 37 --iters 3 --type float
done

variants 1e-12 laplace --size 20 --iters 30
variants 1e-12 laplace --size 12 --iters 5000 --until 1e-14
at_most 1e-11 error "laplace until nothing changes"
"$bin/laplace-serial" --size 20 --iters 30 >"$tmp/serial"
for hosts in 1 2; do
	ends_well "laplace-hybrid, $hosts hosts of 2" hybrid $hosts 2 --size 20 --iters 30
	agrees 1e-12 "laplace-hybrid, $hosts hosts of 2"
done

variants 1e-13 pi --size 1000 --iters 3
at_most 1e-13 error "pi"

variants 1e-12 md --size 11 --dims 2
variants 1e-12 md --size 11 --dims 3
at_most 1e-6 drift "md"

if ! $all; then
	sum_up
	exit
fi
for program in sync semsync msgsync costs socket; do
	refused $program "--size 0"
done
for dwarf in blas1 blas2 blas3 laplace pi md; do
	for variant in serial sysv openmp mpi; do
		refused $dwarf-$variant "--size x"
		refused $dwarf-$variant "--iters 2 --batches 3"
	done
	refused $dwarf-sysv "--rank 1 --of 2"
	refused $dwarf-sysv "--rank 2 --of 2 --key 1"
	refused $dwarf-serial "--workers 2"
done
refused pi-sysv "--dims 3"
refused md-sysv "--dims 4"
refused laplace-hybrid "--workers 2"

sum_up
