// SPDX-License-Identifier: Apache-2.0
#include "load/verifier_log.h"

#include "base/fault.h"
#include "base/log.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define LOG_SIZE     (1 << 20)
#define DETAIL_LINES 8
#define PREFIX	     "libbpf: "
#define DIGITS	     "0123456789"
#define NAME_BEGIN   "prog '"

/* Its pages are touched only when a program is refused. */
static char kernel_log[LOG_SIZE];
static char warning[256];

/* What of a log matters. */
struct findings {
	const char *objection, *source, *instruction;
	const char *lines[DETAIL_LINES]; /* the last ones, up to the objection */
	size_t count;
};

__attribute__((format(printf, 2, 0))) static int listen(enum libbpf_print_level level, const char *format,
							va_list args)
{
	/* The first one names the cause; those that follow say that something failed. */
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

/* The verifier's steps, as opposed to what it says about them: registers, jumps, functions. */
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

int verifier_log__explain(const char *object, int err, struct fault *fault)
{
	struct findings found = read_log();
	char source[200];
	const char *name;
	int size;

	if (!found.objection && err == -ENOSPC && found.count)
		return fault__set(fault, err, "%.128s: cannot load: the kernel's log is too long to say why",
				  object);
	if (!found.objection)
		return fault__set(fault, err, "%.128s: cannot load: %s: %.200s", object, strerror(-err),
				  verifier_log__warning(err));
	show(&found, object);
	name = find_program(&size);
	format_source(found.source, source, sizeof(source));
	return fault__set(fault, err, "%.64s: cannot load: program %.*s: %.120s%s%s%.*s", object, size, name,
			  found.objection, source, found.instruction ? ", instruction " : "",
			  found.instruction ? (int)strcspn(found.instruction, ";") : 0,
			  found.instruction ? found.instruction : "");
}
