# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
#
# Runs all cases in one boot. A line of /vmtest/cases is NAME OBJECTS PREPARE OPTION... The loader's lines
# are in /out/NAME.log. /out/NAME.sum has its exit code, the counted calls and the number of programs left.
export PATH=/bin:/vmtest
mkdir -p /out
ip link set lo up
mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf
mkdir /cgroup
mount -t cgroup2 none /cgroup
if ip link add kit0 type netkit; then
	ip link set kit0 up && ip link set nk0 up
	ip addr add 10.9.9.1/24 dev kit0
fi 2> /out/netkit
before=$(attach_guest programs)

without_btf() { mount -t tmpfs none /sys/kernel/btf; }
again_btf() { umount /sys/kernel/btf; }

# Start another loader with the case's objects, and wait until it is ready.
start_first() {
	# shellcheck disable=SC2086 # words
	verify-and-load --objects "/vmtest/objects/$objects" --trust /vmtest/trust "$@" 2> /out/first &
	first_loader=$!
	for _ in $(seq 300); do
		grep -q '"event":"ready"' /out/first && break
		usleep 50000
	done
}
# Kill that loader, so that the case finds its tc filters. killed_twice attaches two of them.
without_killed() {
	# shellcheck disable=SC2086 # words
	start_first $options
	kill -KILL "$first_loader"
	wait "$first_loader"
}
again_killed() { :; }
without_killed_twice() {
	options="$options $options"
	without_killed
	options=${options#* }
}
again_killed_twice() { :; }
# Keep that loader running beside the case.
without_beside() {
	# shellcheck disable=SC2086 # words
	start_first $options
}
again_beside() {
	kill -TERM "$first_loader"
	wait "$first_loader"
}

# An interface that is deleted and made anew while the loader runs; the filter of clsact is gone with it.
without_anew() { ip link add lab0 type dummy; }
wait_for() {
	for _ in $(seq 300); do
		[ "$(grep -c "\"event\":\"$1\"" "/out/$name.log")" = "$2" ] && break
		usleep 50000
	done
}
while_anew() {
	ip link del lab0
	wait_for lost 1
	ip link add lab0 type dummy
	wait_for attach 2
}
again_anew() { ip link del lab0; }

while read -r name objects prepare options; do
	[ "$prepare" = - ] || "without_$prepare"
	# shellcheck disable=SC2086 # words
	verify-and-load --objects "/vmtest/objects/$objects" --trust /vmtest/trust $options 2> "/out/$name.log" &
	loader=$!
	for _ in $(seq 300); do
		grep -q '"event":"ready"' "/out/$name.log" && break
		kill -0 $loader 2> /dev/null || break
		usleep 50000
	done
	[ "$prepare" = anew ] && while_anew
	first=$(attach_guest count)
	attach_guest work
	second=$(attach_guest count)
	kill -TERM $loader 2> /dev/null
	wait $loader
	code=$?
	for _ in $(seq 40); do
		left=$(($(attach_guest programs) - before))
		[ $left = 0 ] && break
		usleep 50000
	done
	echo "$code $((second - first)) $left" > "/out/$name.sum"
	[ "$prepare" = - ] || "again_$prepare"
	# The kernel frees maps late, and what they counted would be missing from what the next case counts.
	for _ in $(seq 100); do
		[ "$(attach_guest count)" = 0 ] && break
		usleep 50000
	done
done < /vmtest/cases
