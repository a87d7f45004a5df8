/* Escaping of JSON strings in the two steps that any bounded writer needs: copy a run that needs none, then
 * one escape.
 *
 *   while (s.len > 0) {
 *       size_t n = json_plain_run(s);  … copy n bytes …  s = sv_sub(s, n, s.len);
 *       if (s.len > 0) { … copy json_escape_next(&s, escape) bytes of escape … }
 *   }
 *
 * Together they give what jansson's JSON_COMPACT dump writes for valid UTF-8; each byte that belongs to no
 * well-formed sequence becomes U+FFFD. */
#ifndef BALM_BASE_ESCAPE_H
#define BALM_BASE_ESCAPE_H

#include "base/strview.h"

#define JSON_ESCAPE_MAX 6

/* Length of the longest start of `s` that is well-formed UTF-8 and needs no escape. */
size_t json_plain_run(struct strview s);
/* Length of the start of `s` that is well-formed UTF-8, needs no escape and is at most `max` bytes, cut
 * between characters. */
size_t json_plain_run_max(struct strview s, size_t max);
/* Escape the first byte of `s`, which ended a run, and move `s` past it. Returns the length of ret_text (no
 * NUL). */
size_t json_escape_next(struct strview *s, char ret_text[JSON_ESCAPE_MAX]);
#define JSON_ESCAPE_PART     256
#define JSON_ESCAPE_PART_MAX (JSON_ESCAPE_PART * JSON_ESCAPE_MAX + 8)
/* For unbounded writers: escape the next JSON_ESCAPE_PART bytes of `s` or fewer and move `s` past them. */
size_t json_escape_part(struct strview *s, char ret_text[JSON_ESCAPE_PART_MAX]);

#endif
