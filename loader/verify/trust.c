// SPDX-License-Identifier: Apache-2.0
#include "verify/trust.h"

#include "base/json.h"

#include <stdio.h>
#include <string.h>

#define NAMES_SHOWN 8

const struct trust_key *trust__find(const struct trust *t, const uint8_t *key_id)
{
	for (size_t i = 0; i < t->key_count; i++) {
		if (!memcmp(t->keys[i].id, key_id, SIG_KEY_ID_SIZE))
			return &t->keys[i];
	}
	return NULL;
}

const char *trust__project(const struct trust *t)
{
	return json_string_value(json_object_get(t->policy, "project"));
}

static bool allows(const struct trust *t, const char *rule, const char *text)
{
	const json_t *list = json_object_get(t->policy, rule);

	for (size_t i = 0; i < json_array_size(list); i++) {
		if (!strcmp(json_string_value(json_array_get(list, i)), text))
			return true;
	}
	return !list;
}

bool trust__allows_platform(const struct trust *t, const char *platform)
{
	return allows(t, "platforms", platform);
}

bool trust__allows_type(const struct trust *t, const char *type)
{
	return allows(t, "programTypes", type);
}

bool trust__allows_point(const struct trust *t, const char *name)
{
	const json_t *points = json_object_get(t->policy, "attachPoints");

	/* A path with /../ could match a pattern's directory and lead out of it. */
	if (points && strstr(name, "/../"))
		return false;
	for (size_t i = 0; i < json_array_size(points); i++) {
		const char *pattern = json_string_value(json_array_get(points, i));
		size_t n = strcspn(pattern, "*");

		if (pattern[n] ? !strncmp(name, pattern, n) : !strcmp(name, pattern))
			return true;
	}
	return !points;
}

bool trust__has_rule(const struct trust *t, const char *rule)
{
	return json_object_get(t->policy, rule);
}

/* Return the first name after @previous, or NULL; the order of the policy's list does not matter. */
static const char *next_name(const json_t *list, const char *previous)
{
	const char *next = NULL;

	for (size_t i = 0; i < json_array_size(list); i++) {
		const char *name = json_string_value(json_array_get(list, i));

		if (strcmp(name, previous) > 0 && (!next || strcmp(name, next) < 0))
			next = name;
	}
	return next;
}

const char *trust__list(const struct trust *t, const char *rule, char text[TRUST_LIST_SIZE])
{
	const json_t *list = json_object_get(t->policy, rule);
	size_t used = 0, shown = 0;
	const char *name = "";

	text[0] = 0;
	while (shown < NAMES_SHOWN && (name = next_name(list, name)) &&
	       used + strlen(name) + sizeof(", and 100000 more") < TRUST_LIST_SIZE) {
		used += (size_t)snprintf(text + used, TRUST_LIST_SIZE - used, "%s%s", shown ? ", " : "",
					 name);
		shown++;
	}
	if (shown < json_array_size(list))
		snprintf(text + used, TRUST_LIST_SIZE - used, " and %zu more", json_array_size(list) - shown);
	else if (!shown)
		snprintf(text, TRUST_LIST_SIZE, "none at all");
	return text;
}

bool trust__denies_helper(const struct trust *t, uint32_t number)
{
	return json__has_integer(json_object_get(t->policy, "deniedHelpers"), number);
}

/* libbpf resolves name___flavour as name, and cuts at the last such place. */
size_t trust__length_without_flavour(const char *name)
{
	size_t length = strlen(name);

	for (size_t i = length; i-- > 1;) {
		if (name[i - 1] != '_' && !strncmp(name + i, "___", 3) && name[i + 3] && name[i + 3] != '_')
			return i;
	}
	return length;
}

bool trust__denies_kfunc(const struct trust *t, const char *name)
{
	const json_t *denied = json_object_get(t->policy, "deniedKfuncs");

	return json__has_string(denied, name, strlen(name)) ||
	       json__has_string(denied, name, trust__length_without_flavour(name));
}

int64_t trust__minimum_version(const struct trust *t, const char *object_name)
{
	const json_t *objects = json_object_get(t->policy, "objects");

	return json_integer_value(json_object_get(json_object_get(objects, object_name), "minimumVersion"));
}

void trust__free(struct trust *t)
{
	json_decref(t->policy);
	*t = (struct trust){ 0 };
}
