// SPDX-License-Identifier: Apache-2.0
#include "load/verifier_log.h"

#include "base/fault.h"
#include "base/log.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>

#define LOG_SIZE     (1 << 20)
#define DETAIL_LINES 8
#define MASK(cap)    (UINT64_C(1) << (cap))
#define PREFIX	     "libbpf: "
#define DIGITS	     "0123456789"
#define NAME_BEGIN   "prog '"
#define LEAF_BEGIN   "to prog '"
#define NO_BTF	     "this kernel has no BTF (CONFIG_DEBUG_INFO_BTF); use kprobe or raw_tp"

/* The kernel provides the pages only when a program is refused. */
static char kernel_log[LOG_SIZE];
static char warning[256];

/* The important lines of a log. */
struct findings {
	const char *objection, *source, *instruction;
	const char *lines[DETAIL_LINES]; /* the last ones, up to the objection */
	size_t count;
};

__attribute__((format(printf, 2, 0))) static int listen(enum libbpf_print_level level, const char *format,
							va_list args)
{
	/* The first warning has the cause; the next ones only report that something failed. */
	if (level == LIBBPF_WARN && !warning[0] && !strstr(format, "Retrying without")) {
		vsnprintf(warning, sizeof(warning), format, args);
		warning[strcspn(warning, "\n")] = 0;
	}
	return 0;
}

void verifier_log__begin(void)
{
	libbpf_set_print(listen);
	kernel_log[0] = warning[0] = 0;
}

char *verifier_log__buffer(size_t *size)
{
	*size = sizeof(kernel_log);
	return kernel_log;
}

const char *verifier_log__warning(int err)
{
	size_t n = strncmp(warning, PREFIX, strlen(PREFIX)) ? 0 : strlen(PREFIX);

	return warning[n] ? warning + n : strerror(-err);
}

static bool begins(const char *line, const char *with)
{
	return !strncmp(line, with, strlen(with));
}

static bool is_noise(const char *line)
{
	static const char *const noise[] = { "processed ", "verification time", "stack depth",
					     "mark_precise" };

	for (size_t i = 0; i < sizeof(noise) / sizeof(noise[0]); i++) {
		if (begins(line, noise[i]))
			return true;
	}
	return !line[strspn(line, " \t")];
}

/* Return whether a line is a step of the verifier (registers, jumps, functions), and not an objection. */
static bool is_trace(const char *line)
{
	static const char *const words[] = { ";",     "from ",	   "caller:", "callee:",
					     "func#", "Live regs", "frame",   " " };
	size_t n = strspn(line, DIGITS);

	if (n && line[n] == ':')
		return true;
	/* "R1=ctx()" is a state, "R1 invalid mem access" an objection. */
	if (line[0] == 'R' && (n = strspn(line + 1, DIGITS)) && (line[n + 1] == '=' || line[n + 1] == '_'))
		return true;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (begins(line, words[i]))
			return true;
	}
	return false;
}

static void note(struct findings *f, char *line)
{
	size_t n = strspn(line, DIGITS);

	if (f->count == DETAIL_LINES)
		memmove(f->lines, f->lines + 1, sizeof(f->lines) - sizeof(f->lines[0]));
	else
		f->count++;
	f->lines[f->count - 1] = line;
	if (begins(line, "; "))
		f->source = line + 2;
	else if (n && begins(line + n, ": ("))
		f->instruction = line;
}

/* Cut the log into lines. The objection is the first line after the last step. */
static struct findings read_log(void)
{
	struct findings found = { 0 };
	char *line, *rest = kernel_log;

	kernel_log[sizeof(kernel_log) - 1] = 0;
	while ((line = strsep(&rest, "\n"))) {
		if (is_noise(line))
			continue;
		if (is_trace(line))
			found.objection = NULL;
		else if (found.objection && found.objection[0] != '<')
			continue;
		else
			found.objection =
				line; /* "<invalid CO-RE relocation>" is explained by the next one */
		note(&found, line);
	}
	return found;
}

static void show(const struct findings *found, const char *object)
{
	for (size_t i = 0; i < found->count && log__is_human(); i++)
		log__write(&(struct log_line){
			.event = "kernel", .object = object, .message = found->lines[i] });
}

/* The name in "libbpf: prog 'NAME': BPF program load failed"; its length is in @size. */
static const char *find_program(int *size)
{
	const char *name = strstr(warning, NAME_BEGIN);

	*size = name ? (int)strcspn(name + strlen(NAME_BEGIN), "'") : 0;
	return name ? name + strlen(NAME_BEGIN) : "";
}

/* "text @ file.c:12" becomes "file.c:12: text"; kernels before 6.10 give the text alone. */
static void format_source(const char *source, char *text, size_t room)
{
	const char *at = source ? strstr(source, " @ ") : NULL;

	text[0] = 0;
	if (at)
		snprintf(text, room, ", at %.60s: %.*s", at + 3, at - source < 100 ? (int)(at - source) : 100,
			 source);
	else if (source)
		snprintf(text, room, ", at: %.100s", source);
}

/*
 * The kernel verifier objects to code that it allows with a capability, and its words do not always name that
 * capability (sanitize_err(), is_pointer_value() and bpf_base_func_proto() of Linux 5.10 to 6.18).
 */
static uint64_t find_capabilities(const char *objection)
{
	static const struct {
		const char *words;
		uint64_t capabilities;
	} objections[] = {
		{ "prohibited for !root", MASK(CAP_PERFMON) }, /* pointer arithmetic, variable stack access */
		{ "pointer arithmetic prohibited", MASK(CAP_PERFMON) },
		{ "pointer comparison prohibited", MASK(CAP_PERFMON) },
		{ "pointer -= pointer prohibited", MASK(CAP_PERFMON) },
		{ "leaks addr", MASK(CAP_PERFMON) },
		{ "corrupt spilled pointer", MASK(CAP_PERFMON) },
		{ "partial copy of pointer", MASK(CAP_PERFMON) },
		{ "invalid read from stack", MASK(CAP_PERFMON) }, /* uninitialized, or a stored pointer */
		{ "invalid indirect read from stack", MASK(CAP_PERFMON) },
		{ "allowed only to CAP_PERFMON", MASK(CAP_PERFMON) },
		{ "allowed for CAP_BPF", MASK(CAP_BPF) }, /* calls of functions */
		{ "back-edge from insn", MASK(CAP_BPF) }, /* loops */
		{ "unknown func ", FAULT_ANY_CAPABILITY },
		{ "cannot use helper", FAULT_ANY_CAPABILITY },
	};

	for (size_t i = 0; i < sizeof(objections) / sizeof(objections[0]); i++) {
		if (strstr(objection, objections[i].words))
			return objections[i].capabilities;
	}
	return 0;
}

/* Return the program that libbpf could not put into a table of tail calls because it was not loaded, or NULL.
 */
static const char *find_missing_leaf(int *size)
{
	const char *slot = strstr(warning, "failed to initialize slot [");
	const char *name = slot ? strstr(slot, LEAF_BEGIN) : NULL;

	if (!name || !strstr(name, "' fd=-"))
		return NULL;
	name += strlen(LEAF_BEGIN);
	*size = (int)strcspn(name, "'");
	return name;
}

/* Return an advice about a warning of libbpf, whose own words name numbers and other causes; or NULL. */
static const char *find_advice(void)
{
	static const struct {
		const char *words, *advice;
	} known[] = {
		{ "kernel BTF type ID",
		  "this kernel has no such function or hook; bpftool btf dump file /sys/kernel/btf/vmlinux "
		  "lists all" },
		{ "kernel BTF is missing", NO_BTF },
		{ "valid kernel BTF", NO_BTF },
		{ "loading vmlinux BTF", NO_BTF },
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (strstr(warning, known[i].words))
			return known[i].advice;
	}
	return NULL;
}

/* Explain a failure that the kernel verifier has not explained. */
static int explain_warning(const char *object, int err, struct fault *fault)
{
	const char *advice = find_advice();

	if (advice)
		return fault__set(fault, err, "%.128s: cannot load: %s (libbpf: %.160s)", object, advice,
				  verifier_log__warning(err));
	/* The warning of a first program that is denied suggests RLIMIT_MEMLOCK, which is not the cause. */
	if (strstr(warning, "RLIMIT_MEMLOCK"))
		return fault__set(fault, err, "%.128s: cannot load: %s", object, strerror(-err));
	return fault__set(fault, err, "%.128s: cannot load: %s: %.200s", object, strerror(-err),
			  verifier_log__warning(err));
}

int verifier_log__explain(const char *object, int err, struct fault *fault)
{
	struct findings found = read_log();
	char source[200];
	const char *name;
	int size;

	fault->capabilities = found.objection ? find_capabilities(found.objection) :
			      err == -EPERM   ? FAULT_ANY_CAPABILITY :
						0;
	if (!found.objection && err == -ENOSPC && found.count)
		return fault__set(
			fault, err,
			"%.128s: cannot load: the kernel's log has more than %d bytes, so the reason is "
			"cut off; buildtool check shows it",
			object, LOG_SIZE);
	name = find_missing_leaf(&size);
	if (!found.objection && name)
		return fault__set(fault, err,
				  "%.128s: cannot load: a table of tail calls holds program %.*s, which is "
				  "not loaded; use --load %.*s",
				  object, size, name, size, name);
	if (!found.objection)
		return explain_warning(object, err, fault);
	show(&found, object);
	name = find_program(&size);
	format_source(found.source, source, sizeof(source));
	return fault__set(fault, err, "%.64s: cannot load: program %.*s: %.120s%s%s%.*s", object, size, name,
			  found.objection, source, found.instruction ? ", instruction " : "",
			  found.instruction ? (int)strcspn(found.instruction, ";") : 0,
			  found.instruction ? found.instruction : "");
}
