# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
#
# One boot, all cases. A line of /vmtest/cases: NAME OBJECTS PREPARE OPTION...; what it said is in
# /out/NAME.log, and in /out/NAME.sum its exit code, how often it counted work, and what was left.
export PATH=/bin:/vmtest
mkdir -p /out
ip link set lo up
before=$(attach_guest programs)

without_btf() { mount -t tmpfs none /sys/kernel/btf; }
again_btf() { umount /sys/kernel/btf; }

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
done < /vmtest/cases
