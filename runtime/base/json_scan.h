/* Reading JSON in one pass without building a tree, for the two hot paths (records, the alert webhook);
 * all else uses base/json.h.
 *
 * A cursor over bytes and calls that expect something at it. Errors stick: the first one is kept in
 * `problem` (static text) and `at`, every later call does nothing and returns false, so a reader checks
 * json_scan_failed() where it matters. Strings without escapes borrow from the text, others live in the
 * arena. Strict RFC 8259 with well-formed UTF-8 and no lone surrogates; \u0000 is accepted and gives a NUL
 * byte. Nesting is bounded by JSON_DEPTH_MAX; nothing here recurses.
 *
 *     bool is_first = true;
 *     if (json_scan_open(&s, '{'))
 *         while (json_scan_member(&s, &is_first, &key)) … read exactly one value …
 *     if (!json_scan_end(&s)) … */
#ifndef BALM_BASE_JSON_SCAN_H
#define BALM_BASE_JSON_SCAN_H

#include "base/arena.h"

struct json_scan {
    const char *start, *at, *end; /* borrowed */
    struct arena *arena;          /* for strings with escapes */
    const char *problem;          /* static; NULL: none yet. `at` stays where it was found */
    unsigned depth;               /* open objects and arrays */
};

/* At the first byte of `text`, which must outlive the views that are read from it. */
void json_scan_init(struct json_scan *s, struct strview text, struct arena *a);
/* Skips white space; the next byte, or '\0' at the end. */
char json_scan_peek(struct json_scan *s);
/* An object ('{') or array ('[') begins here. */
bool json_scan_open(struct json_scan *s, char bracket);
/* The next member's name, its ':' consumed; false after the '}' was consumed, or on error. *is_first
 * starts as true. */
bool json_scan_member(struct json_scan *s, bool *is_first, struct strview *ret_name);
/* A further element follows; false after the ']' was consumed, or on error. */
bool json_scan_element(struct json_scan *s, bool *is_first);
bool json_scan_string(struct json_scan *s, struct strview *ret_text);
/* Digits with at most one '-', no fraction, no exponent. */
bool json_scan_integer(struct json_scan *s, struct strview *ret_digits);
bool json_scan_bool(struct json_scan *s, bool *ret_value);
/* Any one value, checked to its end; its bytes as they are. ret_raw may be NULL. */
bool json_scan_value(struct json_scan *s, struct strview *ret_raw);
/* Nothing but white space is left, and nothing failed. */
bool json_scan_end(struct json_scan *s);
bool json_scan_failed(const struct json_scan *s);
/* Set a problem of the caller's own at the cursor; false, so that a failing line reads `return
 * json_scan_fail(…)`. */
bool json_scan_fail(struct json_scan *s, const char *problem);
/* Line and column of `at` (a byte of the text), from 1; columns count characters. */
void json_scan_position(const struct json_scan *s, const char *at, size_t *ret_line, size_t *ret_column);

#endif
