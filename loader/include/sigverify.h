/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libsigverify: decides whether an eBPF object may be loaded, by spec/sig-section.md and
 * spec/trust-policy.md.
 *
 * The library opens no file, keeps no state and starts no process. Load the verified bytes from the same
 * buffer, because a file that is opened again can be another file. loader/verify/README.md shows how to link.
 */
#ifndef SIGVERIFY_H
#define SIGVERIFY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SIGVERIFY_API __attribute__((visibility("default")))

#define SIGVERIFY_MESSAGE_SIZE 512
#define SIGVERIFY_DIGEST_SIZE  32

struct sigverify_store;	  /* the trusted keys and the rules of the policy */
struct sigverify_verdict; /* the decision about one object */

/*
 * Open a trust store from the bytes of a policy (JSON) or of one .pub file (PEM). Returns NULL on an error,
 * with one line in @message. A store never changes, so several threads may use it.
 */
SIGVERIFY_API struct sigverify_store *sigverify__open(const void *data, size_t size,
						      char message[SIGVERIFY_MESSAGE_SIZE]);
SIGVERIFY_API void sigverify__close(struct sigverify_store *store);

/* Return the size of the largest object that the store accepts, to bound the read of a file; 0 for NULL. */
SIGVERIFY_API size_t sigverify__max_object_bytes(const struct sigverify_store *store);

/*
 * Return whether the policy allows an attach point; false for NULL. Ask for SECTION/TARGET before a program
 * is attached to a target that its section does not name (spec/trust-policy.md, Targets).
 */
SIGVERIFY_API bool sigverify__allows_point(const struct sigverify_store *store, const char *point);

struct sigverify_question {
	const char *platform; /* "linux/arm64"; NULL: any */
	int64_t now;	      /* seconds since 1970 */
	/*
	 * Returns the highest version of an object that was accepted before, or 0. Without the function
	 * (NULL), only the policy's minimumVersion refuses an old release.
	 */
	int64_t (*version_seen)(void *context, const char *project, const char *object_name);
	void *context;
};

/*
 * Verify an object. The verdict borrows from @data. Returns NULL without memory, store, question or data.
 * NULL is no acceptance.
 */
SIGVERIFY_API struct sigverify_verdict *sigverify__verify(const struct sigverify_store *store,
							  const struct sigverify_question *question,
							  const void *data, size_t size);
SIGVERIFY_API void sigverify__free(struct sigverify_verdict *verdict);

/* Return whether the object may be loaded; false for NULL. */
SIGVERIFY_API bool sigverify__is_accepted(const struct sigverify_verdict *verdict);

/* Return the word of a refusal (docs/reference/reasons.md), and a line for people; NULL for an acceptance. */
SIGVERIFY_API const char *sigverify__reason(const struct sigverify_verdict *verdict);
SIGVERIFY_API const char *sigverify__message(const struct sigverify_verdict *verdict);

/*
 * Return the facts of an accepted object, and the keys that counted; NULL or 0 for a refusal, NULL after the
 * last key.
 */
SIGVERIFY_API const char *sigverify__object_name(const struct sigverify_verdict *verdict);
SIGVERIFY_API const char *sigverify__project(const struct sigverify_verdict *verdict);
SIGVERIFY_API int64_t sigverify__version(const struct sigverify_verdict *verdict);
SIGVERIFY_API const uint8_t *sigverify__digest(const struct sigverify_verdict *verdict);
SIGVERIFY_API const uint8_t *sigverify__key_id(const struct sigverify_verdict *verdict, size_t index);

/*
 * Return whether the signers of an accepted object let a constant have the value, or a map so many entries;
 * false for a refusal. A value is true or false, an integer (decimal, or hexadecimal after 0x), or text. Ask
 * before bpf_object__load (spec/sig-section.md, Settable).
 */
SIGVERIFY_API bool sigverify__allows_value(const struct sigverify_verdict *verdict, const char *variable,
					   const char *value);
SIGVERIFY_API bool sigverify__allows_entries(const struct sigverify_verdict *verdict, const char *map,
					     uint32_t entries);

#ifdef __cplusplus
}
#endif

#endif
