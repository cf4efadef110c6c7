// SPDX-License-Identifier: Apache-2.0
#include "load/rollback.h"

#include "base/fault.h"
#include "base/json.h"
#include "pin/pins.h"
#include "pin/record.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Return whether attaching requires libbpf's view of the object, which a record does not hold. */
static bool needs_object(const struct attach_point *point)
{
	return point->place == PLACE_KPROBE || point->place == PLACE_UPROBE || point->place == PLACE_PERF ||
	       point->place == PLACE_STRUCT_OPS || point->place == PLACE_USDT;
}

static int check_link(const struct unit *unit, const struct attachment *a, struct fault *fault)
{
	if (!needs_object(&a->point))
		return 0;
	return fault__set(
		fault, -EOPNOTSUPP,
		"%.128s: program %.64s: rollback requires its object; start the previous image instead",
		unit->file, a->name);
}

static int add_link(struct load *load, struct unit *unit, const char *link, const json_t *item,
		    struct fault *fault)
{
	struct attachment *a = &load->attachments[load->attachment_count];
	const char *name = json_string_value(json_object_get(item, "program"));
	const json_t *now;
	struct attach_point point;

	if (!name || load->attachment_count == LOAD_MAX_LINKS)
		return fault__set(fault, -EINVAL,
				  "%.128s: damaged record; detach its pins, and start the image again",
				  unit->file);
	*a = (struct attachment){ .unit = unit, .old_link = -1, .old_program = -1 };
	record__read_point(item, &a->point);
	a->target = a->point.target ? strdup(a->point.target) : NULL;
	a->link = strdup(link);
	a->name = name;
	load->attachment_count++;
	if (!a->link)
		return fault__set(fault, -ENOMEM, "out of memory");
	if (!a->point.section)
		return fault__set(fault, -EINVAL,
				  "%.128s: damaged record; detach its pins, and start the image again",
				  unit->file);
	/* A recreated interface has a new index, which the newer record holds. */
	now = json_object_get(json_object_get(unit->pins.current.record, "links"), link);
	if (now) {
		record__read_point(now, &point);
		a->point.ifindex = point.ifindex;
	}
	return check_link(unit, a, fault);
}

static int add_links(struct load *load, struct unit *unit, struct fault *fault)
{
	const char *link;
	json_t *item;
	int err;

	json_object_foreach(json_object_get(unit->next.record, "links"), link, item) {
		err = add_link(load, unit, link, item, fault);
		if (err)
			return err;
	}
	return 0;
}

int rollback__prepare(struct load *load, const char *object, struct fault *fault)
{
	struct unit *unit = &load->units[load->count];
	int err;

	*unit = (struct unit){ .share = SHARE_NONE, .pins = PINS_NONE, .rotate = true };
	err = pins__open(&unit->pins, load->lock, load->options->pin_root, object, fault);
	if (!err)
		err = pins__open_previous(&unit->pins, &unit->next, fault);
	if (err) {
		pins__close(&unit->pins);
		return err;
	}
	load->count++;
	/* The links get new ids. */
	json_decref(unit->next.attached);
	unit->next.attached = NULL;
	unit->file = strdup(record__text(&unit->next, "file"));
	unit->object = strdup(record__text(&unit->next, "object"));
	if (!unit->file || !unit->object)
		return fault__set(fault, -ENOMEM, "out of memory");
	if (record__number(&unit->pins.current, "namespace") != record__own_namespace())
		return fault__set(fault, -EXDEV,
				  "%.128s: attached in another network namespace; run the rollback there",
				  unit->file);
	if (json_object_set_new(unit->next.record, "namespace", json_integer(record__own_namespace())))
		return fault__set(fault, -ENOMEM, "out of memory");
	return add_links(load, unit, fault);
}
