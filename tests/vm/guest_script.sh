# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
#
# One boot, all cases: load and count, refuse, answer every vector. What each case said is in a file of its
# own below /out; the tests read them. Runs under busybox.
export PATH=/bin:/vmtest
mkdir -p /out

started=
# start NAME OPTION...: run the loader until it is ready or gone; its lines are in /out/NAME.log.
start() {
	log=/out/$1.log
	shift
	/vmtest/verify-and-load "$@" 2> "$log" &
	started=$!
	for _ in $(seq 600); do
		grep -q '"event":"ready"' "$log" && return 0
		kill -0 $started 2> /dev/null || return 1
		usleep 100000
	done
	echo "not ready in a minute" >> "$log"
}

# stop NAME: end the loader as an engine does; its exit code is in /out/NAME.code, what is left in NAME.left.
stop() {
	kill -TERM $started 2> /dev/null
	wait $started
	echo $? > "/out/$1.code"
	for _ in $(seq 50); do
		guest_tool programs > "/out/$1.left"
		[ -s "/out/$1.left" ] || break
		usleep 100000
	done
}

guest_tool programs > /out/before

# Each object alone, so that one that this kernel cannot run hides no other.
for object in /vmtest/objects/*.o; do
	name=$(basename "$object" .bpf.o)
	start "$name" --objects "$object" --trust /vmtest/trust
	guest_tool work 4711 20 10 2> "/out/$name.errors"
	guest_tool talk 5 100 2>> "/out/$name.errors"
	guest_tool maps > "/out/$name.maps"
	stop "$name"
done

# Two of the programs that ship, together, with real packets.
mkdir -p /sys/fs/cgroup/vm
start packets --objects /vmtest/packets --trust /vmtest/trust --attach opcua_monitor=lo \
	--attach cgroup_ingress=/sys/fs/cgroup/vm --attach cgroup_egress=/sys/fs/cgroup/vm
guest_tool send lo /vmtest/frames 2> /out/packets.errors
guest_tool maps > /out/opcua.maps
sh -c 'echo $$ > /sys/fs/cgroup/vm/cgroup.procs; exec guest_tool talk 5 100' 2>> /out/packets.errors
guest_tool maps > /out/packets.maps
stop packets

# A workload, become and watched over: what it is given, and what the filter leaves it of bpf(2).
for options in "" "--no-seccomp" "--reload"; do
	name=workload$(echo "$options" | tr -d ' -')
	# shellcheck disable=SC2086 # several options, or none
	verify-and-load --objects /vmtest/objects/vm_regs.bpf.o --trust /vmtest/trust $options \
		-- guest_tool workload > "/out/$name.said" 2> "/out/$name.log"
	echo $? > "/out/$name.code"
done

# Refusals as they happen at a start: nothing but the object's own fault, and no --verify-only.
for case in /vmtest/refused/*; do
	name=$(basename "$case")
	mkdir -p /tmp/state
	start "refused-$name" --objects "$case/objects" --trust "$case/trust"
	stop "refused-$name"
done

# Every vector, with the verifier of this byte order and word size; all of one store and platform at once.
while read -r group trust platform; do
	verify-and-load --verify-only --objects "/vmtest/vectors/$group" --trust "/vmtest/stores/$trust" \
		--platform "$platform" --time "$(cat /vmtest/now)" 2>> /out/vectors
	echo "$group $?" >> /out/vectors.codes
done < /vmtest/vectors.list
