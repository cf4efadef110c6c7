// SPDX-License-Identifier: Apache-2.0
#include "verify/code.h"

#include "base/fault.h"
#include "verify/object.h"
#include "verify/section_types.h"
#include "verify/statement.h"
#include "verify/trust.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SHF_EXECINSTR	4
#define SLOT_SIZE	8
#define SYMBOL_SIZE	24
#define RELOCATION_SIZE 16
#define CODE_MAX	(16u << 20) /* bytes: the time for a file of nothing else stays that of an honest one */
#define SYMBOLS_MAX	131072
#define RELOCATIONS_MAX 262144
#define OPCODE_CALL	0x85
#define SOURCE_HELPER	0
#define SOURCE_LOCAL	1
#define HELPERS_RULE	"; deniedHelpers of the policy sets this rule"
#define KFUNCS_RULE	"; deniedKfuncs of the policy sets this rule"

/* A section of the statement, and the name by which a program of it is loaded. */
struct loaded {
	const char *section, *as;
};

struct reader {
	const struct object *object;
	const struct trust *trust;
	const struct statement *statement;
	struct fault *fault;
	struct section symbols, names; /* of size 0 when there are none */
	uint64_t code_size, relocations_size;
	struct loaded *loaded; /* sorted, each pair once: 65,000 sections may have names of 4,000 programs */
	size_t loaded_count;
};

static int unreadable(const struct reader *r, const char *why)
{
	return fault__set(r->fault, -EKEYREJECTED, "the code cannot be read: %s", why);
}

static int compare_sections(const void *key, const void *item)
{
	return strcmp(key, ((const struct loaded *)item)->section);
}

static int compare_loaded(const void *one, const void *other)
{
	const struct loaded *a = one, *b = other;
	int order = strcmp(a->section, b->section);

	return order ? order : strcmp(a->as, b->as);
}

static int list_loaded(struct reader *r)
{
	size_t count = statement__program_count(r->statement), kept = 0;

	if (!count)
		return 0;
	r->loaded = calloc(count, sizeof(*r->loaded));
	if (!r->loaded)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++)
		r->loaded[i] = (struct loaded){ statement__program_section(r->statement, i),
						statement__loaded_as(r->statement, i) };
	qsort(r->loaded, count, sizeof(*r->loaded), compare_loaded);
	for (size_t i = 0; i < count; i++) {
		if (!kept || compare_loaded(&r->loaded[kept - 1], &r->loaded[i]))
			r->loaded[kept++] = r->loaded[i];
	}
	r->loaded_count = kept;
	return 0;
}

static bool is_code(const struct section *s)
{
	return s->type == SHT_PROGBITS && s->flags & SHF_EXECINSTR && s->size;
}

static bool is_call(const struct reader *r, uint64_t at)
{
	return r->object->data[at] == OPCODE_CALL;
}

/*
 * Refuse sections that overlap: an attacker could make the verifier read 65,000 of 64 MiB, for days. No sum
 * can wrap.
 */
static bool is_read_again(const struct reader *r, uint64_t *sum, const struct section *s)
{
	*sum += s->size;
	return *sum > r->object->size;
}

/* Rules 5 and 6, for a section that is loaded by @name */
static int check_name(const struct reader *r, const char *shown, const char *name)
{
	const char *type = section_types__find(name);
	char allowed[TRUST_LIST_SIZE];

	if (!trust__allows_type(r->trust, type))
		return fault__set(
			r->fault, -EKEYREJECTED,
			"section '%.64s' of type %s is not allowed, only %s; programTypes of the policy sets "
			"this rule",
			shown, type, trust__list(r->trust, "programTypes", allowed));
	if (!trust__allows_point(r->trust, name))
		return fault__set(
			r->fault, -EKEYREJECTED,
			"attach point '%.64s' is not allowed, only %s; attachPoints of the policy sets "
			"this rule",
			name, trust__list(r->trust, "attachPoints", allowed));
	return 0;
}

static int check_section(const struct reader *r, const struct section *s)
{
	const char *name = object__section_name(r->object, s), *shown = name;
	const struct loaded *item = NULL;
	int err = 0;

	if (strnlen(name, OBJECT_TEXT_MAX + 1) > OBJECT_TEXT_MAX)
		return unreadable(r, "a section with too long a name");
	if (!strcmp(name, ".text"))
		return 0;
	name += *name == '?'; /* libbpf loads such a program only on request */
	/* Only a name that libbpf does not know can be declared. Each program of the section counts. */
	if (r->loaded_count && !strcmp(section_types__find(name), "unspec"))
		item = bsearch(name, r->loaded, r->loaded_count, sizeof(*item), compare_sections);
	if (!item)
		return check_name(r, shown, name);
	while (item > r->loaded && !strcmp(item[-1].section, name))
		item--;
	for (; !err && item < r->loaded + r->loaded_count && !strcmp(item->section, name); item++)
		err = check_name(r, shown, item->as);
	return err;
}

static int check_helper(const struct reader *r, uint32_t number)
{
	if (!trust__has_rule(r->trust, "deniedHelpers"))
		return 0;
	if (!statement__lists_helper(r->statement, number))
		return fault__set(r->fault, -EKEYREJECTED,
				  "the code calls helper %u, which its statement does not list" HELPERS_RULE,
				  number);
	if (trust__denies_helper(r->trust, number))
		return fault__set(r->fault, -EKEYREJECTED,
				  "the code calls helper %u, which is denied" HELPERS_RULE, number);
	return 0;
}

static int check_kfunc(const struct reader *r, const char *name)
{
	if (!trust__has_rule(r->trust, "deniedKfuncs"))
		return 0;
	if (!statement__lists_kfunc(r->statement, name))
		return fault__set(r->fault, -EKEYREJECTED,
				  "the code calls '%.64s', which its statement does not list" KFUNCS_RULE,
				  name);
	if (trust__denies_kfunc(r->trust, name))
		return fault__set(r->fault, -EKEYREJECTED,
				  "the code calls '%.64s', which is denied" KFUNCS_RULE, name);
	return 0;
}

static int check_instructions(struct reader *r, const struct section *s)
{
	const struct object *o = r->object;
	int err = 0;

	if (is_read_again(r, &r->code_size, s))
		return unreadable(r, "sections of code that overlap");
	if (r->code_size > CODE_MAX)
		return unreadable(r, "more than 16 MiB of code");
	if (s->size % SLOT_SIZE)
		return unreadable(r, "half an instruction");
	for (uint64_t at = s->offset; !err && at < s->offset + s->size; at += SLOT_SIZE) {
		unsigned source;

		if (!is_call(r, at))
			continue;
		/* The two register fields are bit fields, which change places with the byte order. */
		source = o->big_endian ? o->data[at + 1] & 0xf : o->data[at + 1] >> 4;
		if (source > SOURCE_LOCAL)
			return unreadable(r, "a kernel function called by its number");
		if (source == SOURCE_HELPER)
			err = check_helper(r, (uint32_t)object__get(o, at + 4, 4));
	}
	return err;
}

static bool is_table(const struct section *s, uint64_t entry_size)
{
	return s->entsize == entry_size && s->size % entry_size == 0;
}

static int find_symbols(struct reader *r)
{
	const struct object *o = r->object;
	unsigned found = 0;

	for (unsigned i = 0; i < o->sections; i++) {
		struct section s = object__section(o, i);

		if (s.type != SHT_SYMTAB)
			continue;
		if (found++ || s.link >= o->sections || !is_table(&s, SYMBOL_SIZE))
			return unreadable(r, "more than one symbol table, or a damaged one");
		if (s.size > SYMBOLS_MAX * SYMBOL_SIZE)
			return unreadable(r, "more than 131072 symbols");
		r->symbols = s;
		r->names = object__section(o, s.link);
		if (r->names.type != SHT_STRTAB || !r->names.size ||
		    o->data[r->names.offset + r->names.size - 1])
			return unreadable(r, "a symbol table without names");
	}
	return 0;
}

/* Check one relocation in section @code: a call of an undefined symbol is a call of a kernel function. */
static int check_relocation(const struct reader *r, const struct section *code, uint64_t at)
{
	const struct object *o = r->object;
	uint64_t offset = object__get(o, at, 8), number = object__get(o, at + 8, 8) >> 32, symbol, name;
	const char *text;

	if (offset % SLOT_SIZE || offset >= code->size || number >= r->symbols.size / SYMBOL_SIZE)
		return unreadable(r, "a relocation of what is not there");
	symbol = r->symbols.offset + number * SYMBOL_SIZE;
	if (!is_call(r, code->offset + offset) || object__get(o, symbol + 6, 2))
		return 0;
	name = object__get(o, symbol, 4);
	if (name >= r->names.size)
		return unreadable(r, "a symbol with a name outside the table");
	text = (const char *)o->data + r->names.offset + name;
	if (strnlen(text, OBJECT_TEXT_MAX + 1) > OBJECT_TEXT_MAX)
		return unreadable(r, "a symbol with too long a name");
	return check_kfunc(r, text);
}

static int check_relocations(struct reader *r, const struct section *s)
{
	struct section code;
	int err = 0;

	if (s->info >= r->object->sections)
		return 0;
	code = object__section(r->object, s->info);
	if (!is_code(&code))
		return 0;
	if (is_read_again(r, &r->relocations_size, s))
		return unreadable(r, "tables of relocations that overlap");
	if (r->relocations_size > RELOCATIONS_MAX * RELOCATION_SIZE)
		return unreadable(r, "more than 262144 relocations");
	if (!is_table(s, RELOCATION_SIZE))
		return unreadable(r, "a damaged table of relocations");
	for (uint64_t i = 0; !err && i < s->size / RELOCATION_SIZE; i++)
		err = check_relocation(r, &code, s->offset + i * RELOCATION_SIZE);
	return err;
}

int code__check(const struct object *object, const struct trust *trust, const struct statement *statement,
		struct fault *fault)
{
	struct reader r = { .object = object, .trust = trust, .statement = statement, .fault = fault };
	int err;

	if (!trust__has_rule(trust, "programTypes") && !trust__has_rule(trust, "attachPoints") &&
	    !trust__has_rule(trust, "deniedHelpers") && !trust__has_rule(trust, "deniedKfuncs"))
		return 0;
	err = list_loaded(&r);
	if (!err)
		err = find_symbols(&r);
	for (unsigned i = 0; !err && i < object->sections; i++) {
		struct section s = object__section(object, i);

		if (is_code(&s)) {
			err = check_section(&r, &s);
			if (!err)
				err = check_instructions(&r, &s);
		} else if (s.type == SHT_REL) {
			err = check_relocations(&r, &s);
		}
	}
	free(r.loaded);
	return err;
}
