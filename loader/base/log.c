// SPDX-License-Identifier: Apache-2.0
#include "base/log.h"

#include "base/fault.h"
#include "base/json.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_SIZE   16384
#define LINE_TAIL   2	/* closing brace and newline */
#define STRING_MAX  512 /* bytes of one string; each may become six */
#define DIGEST_SIZE 32

/* The bound of lines: two reloads of the largest set at once, and 20 lines per second over time. */
#define BUCKET_LINES   4000
#define LINES_A_SECOND 20
#define SECOND	       1000000

#define PATIENCE_MS 20

static bool human_lines;
static const char *program = "verify-and-load";
static void (*observe)(const struct log_line *line, int64_t duration);

static struct {
	bool bounded;
	int64_t lines, filled; /* millionths of lines that may be written; the time of the last count */
	size_t suppressed;
} bucket;

static struct {
	bool must_not_wait; /* programs are attached: do not delay the answer to a signal */
	bool stalled;
} reader;

struct buffer {
	char text[LINE_SIZE];
	size_t size;
};

void log__set_program(const char *name)
{
	program = name;
}

void log__set_human(bool human)
{
	human_lines = human;
}

bool log__is_human(void)
{
	return human_lines;
}

void log__set_observer(void (*observer)(const struct log_line *line, int64_t duration))
{
	observe = observer;
}

int64_t log__clock(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000 + 1;
}

__attribute__((format(printf, 2, 3))) static void add(struct buffer *b, const char *format, ...)
{
	size_t room = sizeof(b->text) - LINE_TAIL - b->size;
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(b->text + b->size, room, format, args);
	va_end(args);
	if (n > 0)
		b->size += (size_t)n < room ? (size_t)n : room - 1;
}

/* Copy plain text byte by byte: vsnprintf() for each member took a tenth of the time of a verification. */
static void put_byte(struct buffer *b, char c)
{
	if (b->size + 1 < sizeof(b->text) - LINE_TAIL)
		b->text[b->size++] = c;
}

static void put_all(struct buffer *b, const char *text)
{
	while (*text)
		put_byte(b, *text++);
}

static void add_hex(struct buffer *b, const uint8_t *data)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < DIGEST_SIZE; i++) {
		put_byte(b, digits[data[i] >> 4]);
		put_byte(b, digits[data[i] & 15]);
	}
}

/* An attacker can choose file names: bytes outside printable ASCII must not reach a terminal. */
static void add_text(struct buffer *b, const char *text)
{
	for (size_t i = 0; i < STRING_MAX && text[i]; i++) {
		unsigned char c = (unsigned char)text[i];

		if (!human_lines && (c == '"' || c == '\\'))
			put_byte(b, '\\');
		if (c >= 0x20 && c < 0x7f)
			put_byte(b, (char)c);
		else
			put_all(b, human_lines ? "?" : "\\ufffd");
	}
}

static void begin_member(struct buffer *b, const char *name)
{
	put_all(b, ",\"");
	put_all(b, name);
	put_all(b, "\":");
}

static void add_member(struct buffer *b, const char *name, const char *text)
{
	if (!text)
		return;
	begin_member(b, name);
	put_byte(b, '"');
	add_text(b, text);
	put_byte(b, '"');
}

static void add_digest(struct buffer *b, const char *name, const uint8_t *digest)
{
	if (!digest)
		return;
	begin_member(b, name);
	put_byte(b, '"');
	add_hex(b, digest);
	put_byte(b, '"');
}

static void add_key_ids(struct buffer *b, const struct log_line *line)
{
	if (!line->key_id_count)
		return;
	begin_member(b, "keyIds");
	for (size_t i = 0; i < line->key_id_count; i++) {
		put_all(b, i ? ",\"" : "[\"");
		add_hex(b, line->key_ids[i]);
		put_byte(b, '"');
	}
	put_byte(b, ']');
}

/* Add words, separated by blanks, as an array of strings. */
static void add_words(struct buffer *b, const char *name, const char *words)
{
	if (!words)
		return;
	begin_member(b, name);
	put_all(b, *words ? "[\"" : "[");
	for (const char *c = words; *c; c++) {
		if (*c == ' ')
			put_all(b, "\",\"");
		else
			put_byte(b, *c);
	}
	put_all(b, *words ? "\"]" : "]");
}

static void add_time(struct buffer *b, int64_t seconds, int milliseconds)
{
	char date[JSON_TIME_SIZE];

	json__format_time(seconds, date);
	add(b, "{\"v\":1,\"time\":\"%.19s.%03dZ\"", date, milliseconds);
}

static void format_json(struct buffer *b, const struct log_line *line, int64_t duration)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	add_time(b, t.tv_sec, (int)(t.tv_nsec / 1000000));
	add_member(b, "event", line->event);
	add_member(b, "object", line->object);
	add_member(b, "program", line->program);
	add_member(b, "target", line->target);
	add_member(b, "value", line->value);
	add_member(b, "decision", line->decision);
	add_member(b, "reason", line->reason);
	add_digest(b, "digest", line->digest);
	add_key_ids(b, line);
	add_digest(b, "policy", line->policy);
	add_digest(b, "imagePolicy", line->image_policy);
	add_member(b, "platform", line->platform);
	add_member(b, "outcome", line->outcome);
	add_words(b, "capabilities", line->capabilities);
	add_words(b, "unneeded", line->unneeded);
	if (line->count)
		add(b, ",\"count\":%zu", line->count);
	add_member(b, "message", line->message);
	if (line->started)
		add(b, ",\"durationUs\":%lld", (long long)duration);
	b->text[b->size++] = '}';
}

static void add_word(struct buffer *b, const char *before, const char *text)
{
	if (!text)
		return;
	put_all(b, before);
	add_text(b, text);
}

static void format_human(struct buffer *b, const struct log_line *line)
{
	add(b, "%s: %s", program, line->event);
	add_word(b, " ", line->object);
	add_word(b, " ", line->program);
	add_word(b, line->value ? " " : " -> ", line->target);
	add_word(b, " = ", line->value);
	add_word(b, ": ", line->decision);
	add_word(b, ": ", line->reason);
	add_word(b, ": ", line->outcome);
	if (line->count)
		add(b, ": %zu lines", line->count);
	add_word(b, ": ", line->message);
}

/*
 * Return whether stderr accepts a line soon: a pipe that nobody reads would delay the end of the loader. A
 * pipe that polls as writable has room for PIPE_BUF bytes, which is more than these lines have.
 */
static bool has_room(void)
{
	struct pollfd p = { .fd = STDERR_FILENO, .events = POLLOUT };

	if (reader.must_not_wait)
		reader.stalled = !poll(&p, 1, reader.stalled ? 0 : PATIENCE_MS);
	return !reader.stalled;
}

static bool write_line(const struct log_line *line, int64_t duration)
{
	static struct buffer b;
	ssize_t n;

	if (!has_room())
		return false;
	b.size = 0;
	if (human_lines)
		format_human(&b, line);
	else
		format_json(&b, line, duration);
	b.text[b.size++] = '\n';
	/* A closed pipe must not stop the loader. */
	n = write(STDERR_FILENO, b.text, b.size);
	(void)n;
	return true;
}

static void write_suppressed(void)
{
	const struct log_line line = { .event = "suppressed", .count = bucket.suppressed };

	if (line.count && write_line(&line, 0))
		bucket.suppressed = 0;
}

void log__bound(bool bounded)
{
	write_suppressed();
	reader.must_not_wait = true;
	bucket.bounded = bounded;
	bucket.lines = (int64_t)BUCKET_LINES * SECOND;
	bucket.filled = log__clock();
}

/* Take a line out of the bucket; returns false for an empty one. */
static bool may_write(void)
{
	int64_t now = log__clock();

	if (!bucket.bounded)
		return true;
	bucket.lines += (now - bucket.filled) * LINES_A_SECOND;
	bucket.filled = now;
	if (bucket.lines > (int64_t)BUCKET_LINES * SECOND)
		bucket.lines = (int64_t)BUCKET_LINES * SECOND;
	if (bucket.lines < SECOND)
		return false;
	bucket.lines -= SECOND;
	return true;
}

void log__write(const struct log_line *line)
{
	int64_t duration = line->started ? log__clock() - line->started : 0;

	if (observe)
		observe(line, duration);
	if (may_write()) {
		write_suppressed();
		if (!bucket.suppressed && write_line(line, duration))
			return;
	}
	bucket.suppressed++;
}

int log__fail(const struct fault *fault)
{
	log__write(&(struct log_line){ .event = "error", .message = fault->text });
	return fault__code(fault);
}
