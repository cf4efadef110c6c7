// SPDX-License-Identifier: Apache-2.0
#include "load/predecessor.h"

#include "base/fault.h"
#include "base/json.h"
#include "load/unit.h"
#include "pin/bpffs.h"
#include "pin/kernel.h"
#include "pin/pins.h"
#include "pin/record.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/if_link.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static uint64_t inode(const char *path)
{
	struct stat st;

	return path && !stat(path, &st) ? (uint64_t)st.st_ino : 0;
}

/* On 32-bit machines an inode number is the lower half of the cgroup's id. */
static bool is_group(uint64_t id, const char *path)
{
	uint64_t number = inode(path);

	return number && (id == number || (uint32_t)id == number);
}

static uint32_t map_id(int fd)
{
	struct bpf_map_info info = { 0 };
	__u32 size = sizeof(info);

	return bpf_map_get_info_by_fd(fd, &info, &size) ? 0 : info.id;
}

/* The index of an interface is one of its network namespace, which the kernel does not report for a link. */
static bool is_on_interface(const struct attachment *a, uint32_t ifindex)
{
	if ((int)ifindex != a->point.ifindex)
		return false;
	return !a->unit->pins.path[0] || record__number(&a->unit->pins.current, "namespace") ==
						 record__number(&a->unit->next, "namespace");
}

/* The kernel does not change the mode of a link. A target without a mode accepts each. */
static bool has_mode(const struct attach_point *point, uint32_t program)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, opts);

	if (!point->flags || bpf_xdp_query(point->ifindex, 0, &opts))
		return true;
	return program == (point->flags & XDP_FLAGS_SKB_MODE ? opts.skb_prog_id : opts.drv_prog_id);
}

bool predecessor__is_at(const struct attachment *a, int link)
{
	const struct attach_point *point = &a->point;
	struct bpf_link_info info = { 0 };
	__u32 size = sizeof(info);

	if (bpf_link_get_info_by_fd(link, &info, &size))
		return false;
	switch (info.type) {
	case BPF_LINK_TYPE_XDP:
		return is_on_interface(a, info.xdp.ifindex) && has_mode(point, info.prog_id);
	case BPF_LINK_TYPE_TCX:
	case BPF_LINK_TYPE_NETKIT:
		return is_on_interface(a, info.tcx.ifindex) && info.tcx.attach_type == point->attach_type;
	case BPF_LINK_TYPE_CGROUP:
		return is_group(info.cgroup.cgroup_id, point->target) &&
		       info.cgroup.attach_type == point->attach_type;
	case BPF_LINK_TYPE_NETNS:
		return info.netns.netns_ino && info.netns.netns_ino == inode(point->target) &&
		       info.netns.attach_type == point->attach_type;
	case BPF_LINK_TYPE_SOCKMAP:
		return info.sockmap.map_id == map_id(point->map_fd);
	case BPF_LINK_TYPE_ITER:
		return point->map_fd < 0 || info.iter.map.map_id == map_id(point->map_fd);
	default:
		return true;
	}
}

/* Return whether one place can have several names. */
static bool has_aliases(enum attach_place place)
{
	return place == PLACE_XDP || place == PLACE_TCX || place == PLACE_CGROUP || place == PLACE_NETNS;
}

/* Return whether another attachment of the object keeps the link by its name. */
static bool is_kept_by_name(const struct load *load, const struct attachment *a, const char *name, int link)
{
	for (size_t i = 0; i < load->attachment_count; i++) {
		const struct attachment *other = &load->attachments[i];

		if (other != a && other->unit == a->unit && !strcmp(other->link, name) &&
		    predecessor__is_at(other, link))
			return true;
	}
	return false;
}

/* Find the pinned link of the program that is at the point, under another name. Returns -1 without one. */
static int find_renamed_pin(const struct load *load, const struct attachment *a)
{
	const struct pins *pins = &a->unit->pins;
	struct attach_point point;
	const char *name;
	json_t *item;

	json_object_foreach(json_object_get(pins->current.record, "links"), name, item) {
		const char *program = json_string_value(json_object_get(item, "program"));
		int fd;

		record__read_point(item, &point);
		if (!program || strcmp(program, a->name) || !strcmp(name, a->link) ||
		    point.place != a->point.place || point.attach_type != a->point.attach_type)
			continue;
		fd = pins__get_link(pins, name);
		if (fd < 0)
			continue;
		if (predecessor__is_at(a, fd) && !is_kept_by_name(load, a, name, fd))
			return fd;
		close(fd);
	}
	return -1;
}

static int find_pinned(const struct load *load, struct attachment *a, struct fault *fault)
{
	const struct pins *pins = &a->unit->pins;
	int fd = pins__get_link(pins, a->link), renamed = -1;

	if (has_aliases(a->point.place) && (fd < 0 || !predecessor__is_at(a, fd)))
		renamed = find_renamed_pin(load, a);
	if (renamed >= 0) {
		if (fd >= 0)
			close(fd);
		fd = renamed;
		a->renamed = true;
	}
	if (fd == -ENOENT)
		return 0;
	if (fd < 0)
		return fault__set(fault, fd, "links/%.100s: %s", a->link,
				  fd == -EBADF	? "something else is there" :
				  fd == -EEXIST ? "not the link that was pinned, or with another program" :
						  bpffs__reason(fd));
	a->old_link = fd;
	a->old_program = bpffs__find(&pins->current.programs, a->name);
	return 0;
}

static bool is_same_program(const struct attachment *old, const struct attachment *a)
{
	return old->handle.fd && !strcmp(old->unit->object, a->unit->object) && !strcmp(old->name, a->name);
}

static void find_held(const struct load *load, struct attachment *a)
{
	struct attachment *named = NULL, *there = NULL;

	for (size_t i = 0; load->old && i < load->old->attachment_count; i++) {
		struct attachment *old = &load->old->attachments[i];

		if (!is_same_program(old, a))
			continue;
		if (!strcmp(old->link, a->link))
			named = old;
		else if (has_aliases(a->point.place) && old->point.place == a->point.place &&
			 old->handle.is_link && predecessor__is_at(a, old->handle.fd) &&
			 !is_kept_by_name(load, a, old->link, old->handle.fd))
			there = old;
	}
	if (there && !(named && named->handle.is_link && predecessor__is_at(a, named->handle.fd)))
		named = there;
	a->old = named;
	if (!named || !named->handle.is_link)
		return;
	a->old_link = named->handle.fd;
	a->old_program = unit__program(named->unit, named->name);
}

int predecessor__find(const struct load *load, struct attachment *a, struct fault *fault)
{
	if (a->unit->pins.path[0])
		return find_pinned(load, a, fault);
	find_held(load, a);
	return 0;
}
