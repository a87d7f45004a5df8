/* Alertmanager's label matchers, as its configuration writes them: one a string, or several with commas, with
 * or without braces.
 *
 *   alertname="NginxDown"   job!="test"   namespace!~"kube-.*"   "my.label"="x"
 *   {severity=~"critical|page", team=web}
 *
 * Reading follows Alertmanager's classic parser (prometheus/alertmanager: pkg/labels/parse.go): a value may
 * stand without quotes; in quotes \" \\ \n are escapes and any other backslash is literal; an unescaped quote
 * inside is an error. A label that is not there is the empty text. Regular expressions are PCRE2, anchored at
 * both ends, with limits on steps, depth and heap: reaching one is "no match", said apart so that it can be
 * counted. */
#ifndef BALM_DISPATCHER_MATCHER_H
#define BALM_DISPATCHER_MATCHER_H

#include "store/record.h"

#define MATCHER_TEXT_MAX 4096 /* one string with matchers; bounds the compiled pattern */
#define MATCHERS_MAX     64   /* of one runbook */

enum matcher_op { MATCHER_EQUAL, MATCHER_NOT_EQUAL, MATCHER_REGEX, MATCHER_NOT_REGEX };

struct matcher {
    struct strview name, value; /* arena */
    enum matcher_op op;
    struct matcher_regex *regex; /* owned; NULL for the first two */
};

struct matchers {
    struct matcher items[MATCHERS_MAX];
    size_t n;
};

enum match_result { MATCH_NO, MATCH_YES, MATCH_LIMIT };

/* Append what `text` says to *m; on failure *m is as before. Message: what, and at which column of the text
 * (from 1). STATUS_INVALID_ARGUMENT; STATUS_RESOURCE_EXHAUSTED past MATCHERS_MAX. */
enum status matchers_parse(struct strview text, struct arena *a, struct matchers *m,
                           struct error *err) MUST_USE;
void matchers_release(struct matchers *m);
/* Do all of them match? None at all takes nothing. MATCH_LIMIT: a regular expression gave up; nothing else
 * said no before it. */
enum match_result matchers_match(const struct matchers *m, const struct record_labels *labels);
/* The same of a single one and one value. */
enum match_result matcher_test(const struct matcher *m, struct strview value);

#endif
