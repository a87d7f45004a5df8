/* Text for a terminal, of strangers' words: what explain_text.c builds its sections from. A section is a head
 * and behind it a paragraph that is put together first and then broken into lines of EXPLAIN_COLUMNS. */
#ifndef BALM_DISPATCHER_EXPLAIN_LINES_H
#define BALM_DISPATCHER_EXPLAIN_LINES_H

#include "functions/dispatcher/explain.h"

#define LINES_INDENT 12 /* of what stands behind a head */

/* No control character passes. */
void lines_put(struct buf *out, struct strview s);
/* Our own sentences: durations and times without what tells a person nothing. */
void lines_put_sentence(struct buf *out, struct strview s);
/* Any JSON value, a text without its quotes. */
void lines_put_value(struct buf *out, const json_t *value);
/* What a gate has measured: a text of ours, or a number. */
void lines_put_measure(struct buf *out, const json_t *value);
/* `before` and the text of a member; nothing where there is none. */
void lines_put_member(struct buf *par, const char *before, const json_t *o, const char *name);
/* "2026-11-22T14:01:24.123456789Z" -> "14:01:24.123" */
struct strview lines_clock(struct strview time);
/* Bytes of the first n characters of `s`, or of all. */
size_t lines_bytes(struct strview s, size_t n);

/* A paragraph, from lines_begin() to lines_end(), which puts it unless it is empty. */
void lines_begin(struct buf *par);
void lines_end(struct buf *par, struct buf *out, const char *head, unsigned max_lines);
/* No more than max_lines; what is left is cut, which shows. */
void lines_put_paragraph(struct buf *out, const char *head, struct strview text, unsigned max_lines);
/* One of a sentence. */
void lines_put_said(struct buf *out, const char *head, struct strview sentence, unsigned max_lines);

#endif
