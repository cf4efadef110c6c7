// SPDX-License-Identifier: Apache-2.0
/*
 * Triggers the programs of the attachment tests, and reads their counters:
 *
 *   attach_guest work       call victim_work(), unlink and open files, ask for a process group, send packets
 *   attach_guest count      print the sum of the counters of all maps whose names end in _map
 *   attach_guest programs   print the number of programs in the kernel
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CALLS 20

static int bpf(enum bpf_cmd command, union bpf_attr *attr)
{
	return syscall(__NR_bpf, command, attr, sizeof(*attr));
}

/* Probed by name, so the function must exist and not only be inlined. */
__attribute__((noinline)) int victim_work(int number)
{
	__asm__ volatile("" : "+r"(number));
	return number + 1;
}

/* A USDT probe: a place in the code, described by a note as <sys/sdt.h> writes it. */
#define PROBE                                                                                                \
	__asm__ volatile("990: nop\n"                                                                        \
			 ".pushsection .note.stapsdt, \"\", \"note\"\n"                                      \
			 ".balign 4\n"                                                                       \
			 ".4byte 992f-991f, 994f-993f, 3\n"                                                  \
			 "991: .asciz \"stapsdt\"\n"                                                         \
			 "992: .balign 4\n"                                                                  \
			 "993: .8byte 990b, probe_base, 0\n"                                                 \
			 ".asciz \"guest\"\n"                                                                \
			 ".asciz \"work\"\n"                                                                 \
			 ".asciz \"\"\n"                                                                     \
			 "994: .balign 4\n"                                                                  \
			 ".popsection\n"                                                                     \
			 ".pushsection .stapsdt.base, \"a\", \"progbits\"\n"                                 \
			 "probe_base: .space 1\n"                                                            \
			 ".popsection")

static int work(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(9) };
	struct sockaddr_in away = address;
	int udp = socket(AF_INET, SOCK_DGRAM, 0), sum = 0;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	away.sin_addr.s_addr = inet_addr("10.9.9.2"); /* behind netkit, if the kernel has it */
	for (int i = 0; i < CALLS; i++) {
		int fd = open("/proc/version", O_RDONLY);

		sum += victim_work(i);
		PROBE;
		unlink("/tmp/none");
		syscall(__NR_getpgid, 0);
		sendto(udp, "x", 1, 0, (struct sockaddr *)&address, sizeof(address));
		sendto(udp, "x", 1, 0, (struct sockaddr *)&away, sizeof(away));
		close(socket(AF_INET, SOCK_DGRAM, 0));
		close(fd);
	}
	return sum < 0;
}

static uint64_t counter_of(uint32_t id)
{
	union bpf_attr attr = { .map_id = id };
	struct bpf_map_info info = { 0 };
	uint64_t value = 0;
	uint32_t key = 0;
	int fd = bpf(BPF_MAP_GET_FD_BY_ID, &attr);
	size_t length;

	memset(&attr, 0, sizeof(attr));
	attr.info.bpf_fd = fd;
	attr.info.info_len = sizeof(info);
	attr.info.info = (uintptr_t)&info;
	if (fd < 0 || bpf(BPF_OBJ_GET_INFO_BY_FD, &attr))
		return 0;
	length = strlen(info.name);
	memset(&attr, 0, sizeof(attr));
	attr.map_fd = fd;
	attr.key = (uintptr_t)&key;
	attr.value = (uintptr_t)&value;
	if (length < 4 || strcmp(info.name + length - 4, "_map") || bpf(BPF_MAP_LOOKUP_ELEM, &attr))
		value = 0;
	close(fd);
	return value;
}

static int count(void)
{
	union bpf_attr attr = { 0 };
	uint64_t sum = 0;

	while (!bpf(BPF_MAP_GET_NEXT_ID, &attr)) {
		uint32_t id = attr.next_id;

		sum += counter_of(id);
		memset(&attr, 0, sizeof(attr));
		attr.start_id = id;
	}
	return printf("%llu\n", (unsigned long long)sum) < 0;
}

static int programs(void)
{
	union bpf_attr attr = { 0 };
	int number = 0;

	while (!bpf(BPF_PROG_GET_NEXT_ID, &attr)) {
		attr.start_id = attr.next_id;
		number++;
	}
	return printf("%d\n", number) < 0;
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "work"))
		return work();
	if (argc == 2 && !strcmp(argv[1], "count"))
		return count();
	return argc == 2 && !strcmp(argv[1], "programs") ? programs() : 2;
}
