// SPDX-License-Identifier: Apache-2.0
#include "attach.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum place {
	PLACE_SECTION, /* libbpf knows it from the section's name */
	PLACE_XDP,
	PLACE_TCX,
	PLACE_CGROUP,
	PLACE_NOWHERE,
};

/* What a program type attaches to; types that are not here, by section name. */
static const struct {
	enum bpf_prog_type type;
	enum place place;
} places[] = {
	{ BPF_PROG_TYPE_XDP, PLACE_XDP },
	{ BPF_PROG_TYPE_SCHED_CLS, PLACE_TCX },
	{ BPF_PROG_TYPE_CGROUP_SKB, PLACE_CGROUP },
	{ BPF_PROG_TYPE_CGROUP_SOCK, PLACE_CGROUP },
	{ BPF_PROG_TYPE_CGROUP_SOCK_ADDR, PLACE_CGROUP },
	{ BPF_PROG_TYPE_CGROUP_SOCKOPT, PLACE_CGROUP },
	{ BPF_PROG_TYPE_CGROUP_DEVICE, PLACE_CGROUP },
	{ BPF_PROG_TYPE_CGROUP_SYSCTL, PLACE_CGROUP },
	{ BPF_PROG_TYPE_SOCK_OPS, PLACE_CGROUP },
	{ BPF_PROG_TYPE_SYSCALL, PLACE_NOWHERE },
};

static enum place place_of(const struct bpf_program *program)
{
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		if (places[i].type == bpf_program__type(program))
			return places[i].place;
	}
	return PLACE_SECTION;
}

/* if_nametoindex() would bring a netlink client with it. */
static int get_interface_index(const char *name)
{
	struct ifreq request = { 0 };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), err = 0;

	if (fd < 0 && errno == EAFNOSUPPORT)
		fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	memcpy(request.ifr_name, name, strlen(name));
	if (ioctl(fd, SIOCGIFINDEX, &request))
		err = -errno;
	close(fd);
	return err ? err : request.ifr_ifindex;
}

/* Split "eth0:egress"; an interface's name has no colon. */
static int find_interface(const char *target, const char **direction, int *index, struct fault *fault)
{
	size_t n = strcspn(target, ":");
	char name[IF_NAMESIZE] = "";

	*direction = target[n] ? target + n + 1 : NULL;
	if (!n || n >= sizeof(name))
		return fault__usage(fault, "%.64s is not an interface name", target);
	memcpy(name, target, n);
	*index = get_interface_index(name);
	if (*index < 0)
		return fault__set(fault, *index, "interface %s: %s", name, strerror(-*index));
	return 0;
}

static int check_xdp(const char *target, struct fault *fault)
{
	const char *direction;
	int index, err = find_interface(target, &direction, &index, fault);

	if (!err && direction)
		return fault__usage(fault, "%.64s: XDP has no direction", target);
	return err;
}

/* The direction comes from the section's name (tcx/egress), or for plain tc from the target. */
static int check_tcx(struct bpf_program *program, const char *target, struct fault *fault)
{
	enum bpf_attach_type type = bpf_program__expected_attach_type(program), wanted = type;
	const char *direction;
	int index, err = find_interface(target, &direction, &index, fault);

	if (err)
		return err;
	if (direction && !strcmp(direction, "ingress"))
		wanted = BPF_TCX_INGRESS;
	else if (direction && !strcmp(direction, "egress"))
		wanted = BPF_TCX_EGRESS;
	else if (direction)
		return fault__usage(fault, "%.64s: not :ingress or :egress", target);
	if (wanted != BPF_TCX_INGRESS && wanted != BPF_TCX_EGRESS)
		return fault__usage(fault, "%.64s: say %.64s:ingress or %.64s:egress", target, target,
				    target);
	if (type && type != wanted)
		return fault__usage(fault, "%.64s: section %.64s attaches the other way", target,
				    bpf_program__section_name(program));
	err = bpf_program__set_expected_attach_type(program, wanted);
	return err ? fault__set(fault, err, "%s", strerror(-err)) : 0;
}

static int open_cgroup(const char *target, struct fault *fault)
{
	int fd = open(target, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return fault__set(fault, -errno, "cgroup %.200s: %s", target, strerror(errno));
	return fd;
}

static int check_cgroup(const char *target, struct fault *fault)
{
	int fd;

	if (target[0] != '/')
		return fault__usage(fault, "%.200s is not the path of a cgroup", target);
	fd = open_cgroup(target, fault);
	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

bool attach__is_nowhere(const struct bpf_program *program, const char *target)
{
	return target ? !strcmp(target, ATTACH_NOWHERE) : place_of(program) == PLACE_NOWHERE;
}

int attach__check(struct bpf_program *program, const char *target, struct fault *fault)
{
	static const char *const wants[] = {
		[PLACE_XDP] = "INTERFACE",
		[PLACE_TCX] = "INTERFACE",
		[PLACE_CGROUP] = "/PATH/OF/CGROUP",
	};
	enum place place = place_of(program);
	const char *name = bpf_program__name(program);

	if (attach__is_nowhere(program, target))
		return 0;
	if (place == PLACE_SECTION || place == PLACE_NOWHERE)
		return target ? fault__usage(fault, "%.200s: this type of program takes no target", target) :
				0;
	if (!target)
		return fault__usage(fault, "it needs a target: --attach %s=%s", name, wants[place]);
	if (place == PLACE_XDP)
		return check_xdp(target, fault);
	if (place == PLACE_TCX)
		return check_tcx(program, target, fault);
	return check_cgroup(target, fault);
}

static struct bpf_link *attach_cgroup(struct bpf_program *program, const char *target, struct fault *fault)
{
	int fd = open_cgroup(target, fault);
	struct bpf_link *link;

	if (fd < 0) {
		errno = -fd;
		return NULL;
	}
	link = bpf_program__attach_cgroup(program, fd);
	close(fd);
	return link;
}

int attach__program(struct bpf_program *program, const char *target, struct bpf_link **link,
		    struct fault *fault)
{
	enum place place = place_of(program);
	const char *direction;
	int index = 0, err;

	if (place == PLACE_XDP || place == PLACE_TCX) {
		err = find_interface(target, &direction, &index, fault);
		if (err)
			return err;
	}
	errno = 0;
	if (place == PLACE_XDP)
		*link = bpf_program__attach_xdp(program, index);
	else if (place == PLACE_TCX)
		*link = bpf_program__attach_tcx(program, index, NULL);
	else if (place == PLACE_CGROUP)
		*link = attach_cgroup(program, target, fault);
	else
		*link = bpf_program__attach(program);
	if (*link)
		return 0;
	err = errno ? -errno : -EIO;
	if (err == -EOPNOTSUPP && place == PLACE_SECTION)
		return fault__usage(fault,
				    "section %.64s doesn't say where to attach it; --attach %s=none "
				    "loads it only",
				    bpf_program__section_name(program), bpf_program__name(program));
	return fault__set(fault, err, "cannot attach: %s%s", strerror(-err),
			  err == -EBUSY || err == -EEXIST ? " (another program is there)" : "");
}
