/* JSON at the border: jansson with limits, and the one canonical form that is hashed and stored.
 *
 * Canonical bytes = jansson's dump with JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY: keys in byte order,
 * no white space, UTF-8 as it is. Numbers are integers wherever we write them. */
#ifndef BALM_BASE_JSON_H
#define BALM_BASE_JSON_H

#include <jansson.h>

#include "base/arena.h"
#include "base/buf.h"

#define JSON_DEPTH_MAX 64 /* a fold or a dump recurses once a level on a fiber's stack */

/* Parse exactly one value (an object or array unless JSON_DECODE_ANY is in `flags`); the depth is checked
 * before jansson sees the bytes. Message: what, line, column. *ret_value is owned (json_decref). */
enum status json_parse(struct strview text, size_t flags, json_t **ret_value, struct error *err) MUST_USE;
/* Append the canonical bytes of `value`, all or none. A value nested deeper than 2 * JSON_DEPTH_MAX or NULL
 * counts as one that does not fit. */
void json_append_canonical(struct buf *b, const json_t *value);
/* Same, into the arena. Such a value ends the process: it is a mistake of ours, json_parse() lets none in. */
struct strview json_canonical(struct arena *a, const json_t *value);
/* Member as text; empty view if missing or not a string. Borrowed from `object`. */
struct strview json_get_text(const json_t *object, const char *key);
/* json_decref for attribute cleanup use and NULL-safe release. */
void json_release(json_t *value);
/* Overwrites and frees nothing: a new string value of a view. */
json_t *json_text(struct strview s);

#endif
