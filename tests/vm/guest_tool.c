// SPDX-License-Identifier: Apache-2.0
/*
 * The helper of the tests inside a virtual machine, a static program without libraries:
 *
 *   guest_tool work BYTES WRITES FORKS   write this process into every map *_target, then write and fork
 *   guest_tool send IFACE FILE           send frames; each has its length before it, 2 bytes, big-endian
 *   guest_tool talk COUNT SIZE           send datagrams to ourselves over the loopback interface
 *   guest_tool maps                      print each map's contents, a JSON line a map, bytes as hexadecimal
 *   guest_tool programs                  print the name of each loaded program
 *   guest_tool workload                  as a workload, print the answers of bpf(2) as JSON, end with 42
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_KEY	  256
#define MAX_VALUE (64 * 1024)
#define MAX_FRAME 2048

struct target {
	uint32_t tgid;
	uint32_t bytes;
	uint64_t inode;
};

static int die(const char *what)
{
	fprintf(stderr, "guest_tool: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int bpf(enum bpf_cmd command, union bpf_attr *attr)
{
	return syscall(__NR_bpf, command, attr, sizeof(*attr));
}

/* Opens the map or program with the next larger number; negative at the end. */
static int open_next(uint32_t *id, enum bpf_cmd next, enum bpf_cmd by_id)
{
	union bpf_attr attr = { .start_id = *id };
	int fd;

	do {
		if (bpf(next, &attr))
			return -1;
		*id = attr.next_id;
		memset(&attr, 0, sizeof(attr));
		attr.map_id = *id;
		fd = bpf(by_id, &attr);
		attr.start_id = *id;
	} while (fd < 0 && errno == ENOENT);
	return fd < 0 ? die("open by id") : fd;
}

static void read_info(int fd, void *info, uint32_t size)
{
	union bpf_attr attr = { .info = { .bpf_fd = fd, .info_len = size, .info = (uintptr_t)info } };

	memset(info, 0, size);
	if (bpf(BPF_OBJ_GET_INFO_BY_FD, &attr))
		die("info");
}

static int next_map(uint32_t *id, struct bpf_map_info *info)
{
	int fd = open_next(id, BPF_MAP_GET_NEXT_ID, BPF_MAP_GET_FD_BY_ID);

	if (fd >= 0)
		read_info(fd, info, sizeof(*info));
	return fd;
}

/* The file has "0-3" or "0", and ends with the highest number. */
static unsigned int possible_cpus(void)
{
	char text[64] = "";
	int fd = open("/sys/devices/system/cpu/possible", O_RDONLY | O_CLOEXEC);
	const char *last;

	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		die("/sys/devices/system/cpu/possible");
	close(fd);
	last = strrchr(text, '-');
	return atoi(last ? last + 1 : text) + 1;
}

static bool is_per_cpu(uint32_t type)
{
	return type == BPF_MAP_TYPE_PERCPU_HASH || type == BPF_MAP_TYPE_PERCPU_ARRAY ||
	       type == BPF_MAP_TYPE_LRU_PERCPU_HASH;
}

static bool has_data(uint32_t type)
{
	return is_per_cpu(type) || type == BPF_MAP_TYPE_HASH || type == BPF_MAP_TYPE_ARRAY ||
	       type == BPF_MAP_TYPE_LRU_HASH;
}

static void print_hex(const uint8_t *bytes, size_t size)
{
	putchar('"');
	while (size--)
		printf("%02x", *bytes++);
	putchar('"');
}

static void print_entries(int fd, const struct bpf_map_info *info)
{
	unsigned int copies = is_per_cpu(info->type) ? possible_cpus() : 1;
	/* The kernel rounds the size of each copy up to 8 bytes. */
	size_t stride =
		copies > 1 || is_per_cpu(info->type) ? (info->value_size + 7) & ~7UL : info->value_size;
	static uint8_t key[MAX_KEY], value[MAX_VALUE];
	bool first = true;
	union bpf_attr attr = { .map_fd = fd };

	if (info->key_size > sizeof(key) || stride * copies > sizeof(value))
		die("map too large");
	attr.next_key = (uintptr_t)key;
	while (!bpf(BPF_MAP_GET_NEXT_KEY, &attr)) {
		union bpf_attr lookup = { .map_fd = fd, .key = (uintptr_t)key };

		lookup.value = (uintptr_t)value;
		attr.key = (uintptr_t)key;
		if (bpf(BPF_MAP_LOOKUP_ELEM, &lookup))
			continue;
		printf("%s[", first ? "" : ",");
		first = false;
		print_hex(key, info->key_size);
		printf(",[");
		for (unsigned int cpu = 0; cpu < copies; cpu++) {
			if (cpu)
				putchar(',');
			print_hex(value + cpu * stride, info->value_size);
		}
		printf("]]");
	}
}

static int print_maps(void)
{
	struct bpf_map_info info;
	uint32_t id = 0;
	int fd;

	while ((fd = next_map(&id, &info)) >= 0) {
		if (has_data(info.type)) {
			printf("{\"name\":\"%.15s\",\"entries\":[", info.name);
			print_entries(fd, &info);
			printf("]}\n");
		}
		close(fd);
	}
	return 0;
}

static int print_programs(void)
{
	struct bpf_prog_info info;
	uint32_t id = 0;
	int fd;

	while ((fd = open_next(&id, BPF_PROG_GET_NEXT_ID, BPF_PROG_GET_FD_BY_ID)) >= 0) {
		read_info(fd, &info, sizeof(info));
		printf("%.15s\n", info.name);
		close(fd);
	}
	return 0;
}

static void set_targets(const struct target *target)
{
	struct bpf_map_info info;
	uint32_t id = 0, key = 0;
	int fd;

	while ((fd = next_map(&id, &info)) >= 0) {
		size_t length = strlen(info.name);
		union bpf_attr attr = { .map_fd = fd, .key = (uintptr_t)&key };

		attr.value = (uintptr_t)target;
		if (length > 7 && !strcmp(info.name + length - 7, "_target") &&
		    bpf(BPF_MAP_UPDATE_ELEM, &attr))
			die("set target");
		close(fd);
	}
}

static int work(uint32_t bytes, int writes, int forks)
{
	int fd = open("/root/work", O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
	struct target target = { .tgid = getpid(), .bytes = bytes };
	void *data = calloc(1, bytes);
	struct stat status;

	if (fd < 0 || !data || fstat(fd, &status))
		die("/root/work");
	target.inode = status.st_ino;
	set_targets(&target);
	for (int i = 0; i < writes; i++)
		if (write(fd, data, bytes) != (ssize_t)bytes)
			die("write");
	for (int i = 0; i < forks; i++) {
		pid_t child = fork();

		if (child < 0)
			die("fork");
		if (!child)
			_exit(0);
		if (waitpid(child, NULL, 0) != child)
			die("wait");
	}
	memset(&target, 0, sizeof(target));
	set_targets(&target);
	return 0;
}

static int send_frames(const char *interface, const char *file)
{
	struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_ifindex = if_nametoindex(interface) };
	int from = open(file, O_RDONLY | O_CLOEXEC);
	int out = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	uint8_t head[2], frame[MAX_FRAME];

	if (from < 0 || out < 0 || !to.sll_ifindex)
		die(interface);
	while (read(from, head, 2) == 2) {
		size_t size = head[0] << 8 | head[1];

		if (size > sizeof(frame) || read(from, frame, size) != (ssize_t)size)
			die(file);
		if (sendto(out, frame, size, 0, (void *)&to, sizeof(to)) != (ssize_t)size)
			die("send");
	}
	return 0;
}

static int talk(int count, size_t size)
{
	struct sockaddr_in self = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	socklen_t length = sizeof(self);
	uint8_t data[MAX_FRAME] = { 0 };

	if (fd < 0 || size > sizeof(data) || bind(fd, (void *)&self, length) ||
	    getsockname(fd, (void *)&self, &length))
		die("socket");
	while (count--)
		if (sendto(fd, data, size, 0, (void *)&self, length) != (ssize_t)size ||
		    recv(fd, data, sizeof(data), 0) != (ssize_t)size)
			die("datagram");
	return 0;
}

static int error_of(enum bpf_cmd command, union bpf_attr *attr)
{
	return bpf(command, attr) < 0 ? errno : 0;
}

/* Reports error numbers, 0 for none; of several maps, the error of the last one. */
static int be_workload(void)
{
	union bpf_attr create = { .map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 8 };
	int count = 0, lookup = -1, info = -1;
	uint8_t value[MAX_VALUE];
	uint32_t key = 0;

	for (char **p = __environ; *p; p++) {
		union bpf_attr of = { 0 }, at = { .key = (uintptr_t)&key };
		struct bpf_map_info room;

		if (strncmp(*p, "BUILDTOOL_FD_", 13))
			continue;
		at.map_fd = of.info.bpf_fd = atoi(strchr(*p, '=') + 1);
		at.value = (uintptr_t)value;
		of.info.info_len = sizeof(room);
		of.info.info = (uintptr_t)&room;
		lookup = error_of(BPF_MAP_LOOKUP_ELEM, &at);
		info = error_of(BPF_OBJ_GET_INFO_BY_FD, &of);
		count++;
	}
	create.max_entries = 1;
	printf("{\"maps\":%d,\"lookup\":%d,\"info\":%d,\"create\":%d,\"noCommand\":%d}\n", count, lookup,
	       info, error_of(BPF_MAP_CREATE, &create), error_of(999, &create));
	return 42;
}

int main(int argc, char **argv)
{
	const char *command = argc > 1 ? argv[1] : "";

	if (argc == 5 && !strcmp(command, "work"))
		return work(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]));
	if (argc == 4 && !strcmp(command, "send"))
		return send_frames(argv[2], argv[3]);
	if (argc == 4 && !strcmp(command, "talk"))
		return talk(atoi(argv[2]), atoi(argv[3]));
	if (argc == 2 && !strcmp(command, "maps"))
		return print_maps();
	if (argc == 2 && !strcmp(command, "programs"))
		return print_programs();
	if (argc == 2 && !strcmp(command, "workload"))
		return be_workload();
	fprintf(stderr, "guest_tool: unknown command line\n");
	return 2;
}
