# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
#
# Runs all cases in one boot: load and count, refuse, answer every vector. Each case writes files of its own
# below /out, which the tests read. Runs under busybox.
export PATH=/bin:/vmtest
mkdir -p /out

started=
# start NAME OPTION...: run the loader until it is ready or has ended; its lines are in /out/NAME.log.
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

# stop NAME: end the loader as an engine does. Its exit code is in /out/NAME.code, the programs left are in
# /out/NAME.left.
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

# Load each object alone, because this kernel may lack a feature of one of them.
for object in /vmtest/objects/*.o; do
	name=$(basename "$object" .bpf.o)
	start "$name" --objects "$object" --trust /vmtest/trust
	guest_tool work 4711 20 10 2> "/out/$name.errors"
	guest_tool talk 5 100 2>> "/out/$name.errors"
	guest_tool maps > "/out/$name.maps"
	stop "$name"
done

# Set constants and a size, and then one that the type cannot hold.
start settings --objects /vmtest/settings --trust /vmtest/trust --set flag=true --set s8=-128 --set u16=0xfffe \
	--set s32=-2147483647 --set u64=18446744073709551614 --set label=xyz --map-entries settings_seen=16
guest_tool maps > /out/settings.maps
stop settings
start beyond --objects /vmtest/settings --trust /vmtest/trust --set u16=65536
stop beyond

# Run two shipped programs together, with real packets.
mkdir -p /sys/fs/cgroup/vm
start packets --objects /vmtest/packets --trust /vmtest/trust --attach opcua_monitor=lo \
	--attach cgroup_ingress=/sys/fs/cgroup/vm --attach cgroup_egress=/sys/fs/cgroup/vm
guest_tool send lo /vmtest/frames 2> /out/packets.errors
guest_tool maps > /out/opcua.maps
sh -c 'echo $$ > /sys/fs/cgroup/vm/cgroup.procs; exec guest_tool talk 5 100' 2>> /out/packets.errors
guest_tool maps > /out/packets.maps
stop packets

# Run a workload by exec and with --reload: it reports its maps and the answers of bpf(2).
for options in "" "--no-seccomp" "--reload"; do
	name=workload$(echo "$options" | tr -d ' -')
	# shellcheck disable=SC2086 # several options, or none
	verify-and-load --objects /vmtest/objects/vm_regs.bpf.o --trust /vmtest/trust $options \
		-- guest_tool workload > "/out/$name.said" 2> "/out/$name.log"
	echo $? > "/out/$name.code"
done

# Refuse at a start, without --verify-only: each object has one fault.
for case in /vmtest/refused/*; do
	name=$(basename "$case")
	mkdir -p /tmp/state
	start "refused-$name" --objects "$case/objects" --trust "$case/trust"
	stop "refused-$name"
done

# Verify every vector on this byte order and word size, in one run for each store and platform.
while read -r group trust platform; do
	verify-and-load --verify-only --objects "/vmtest/vectors/$group" --trust "/vmtest/stores/$trust" \
		--platform "$platform" --time "$(cat /vmtest/now)" 2>> /out/vectors
	echo "$group $?" >> /out/vectors.codes
done < /vmtest/vectors.list
