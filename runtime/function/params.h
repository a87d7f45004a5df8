/* Parameters of a bot: from the JSON of an invocation into its struct, by the table that `balm generate`
 * makes from bot.yaml.
 *
 * Everything in them came from alerts, so nothing is taken on trust: an unknown parameter is refused (with
 * the nearest known name), each limit and pattern is checked, and texts are copied to the arena,
 * NUL-terminated. A runbook fills parameters from labels, which are texts; so numbers and booleans are
 * taken from a text that spells one, too, and a whole number as JSON may write it (52.0, 1e3). Pure. */
#ifndef BALM_FUNCTION_PARAMS_H
#define BALM_FUNCTION_PARAMS_H

#include "base/json.h"

enum param_type {
    PARAM_TEXT,      /* struct strview; min..max: bytes */
    PARAM_INTEGER,   /* int64_t */
    PARAM_BOOLEAN,   /* bool */
    PARAM_DURATION,  /* int64_t ns; "30s", or whole seconds */
    PARAM_BYTES,     /* int64_t; "64MiB", or plain bytes */
    PARAM_TEXT_LIST, /* struct param_text_list; min..max: entries, each at most PARAM_TEXT_MAX bytes */
};

/* What a text may look like. bot.yaml names them; the manifest's JSON Schema has the same as regular
 * expressions. */
enum param_pattern {
    PARAM_ANY,           /* any UTF-8 without NUL */
    PARAM_LINE,          /* "line": no control characters */
    PARAM_NAME,          /* "name": RFC 1123 subdomain, as of Kubernetes objects */
    PARAM_UNIT,          /* "unit": a systemd unit or service name; cannot be taken for an option or a path */
    PARAM_PATH_ABSOLUTE, /* "path-absolute": from /, no empty, "." or ".." part, no control characters */
    PARAM_URL,           /* "url": http:// or https://, a host, no user, no spaces */
};

#define PARAM_TEXT_MAX  1024 /* default limit of a text's bytes: labels are shorter */
#define PARAM_NAME_MAX  253  /* bytes that PARAM_NAME allows, as DNS */
#define PARAM_UNIT_MAX  255  /* bytes that PARAM_UNIT allows, as systemd */
#define PARAM_ITEMS_MAX 64   /* default limit of a list's entries */

struct param_text_list {
    struct strview *items;
    size_t n;
};

struct param_field {
    const char *name;
    enum param_type type;
    enum param_pattern pattern; /* TEXT, TEXT_LIST */
    size_t offset;
    bool is_required;
    int64_t min, max;         /* always checked, but for BOOLEAN */
    const char *const *names; /* TEXT, TEXT_LIST: the allowed ones, NULL-terminated; NULL: any */
};

/* body: an object, or NULL for none. *ret_params holds the defaults; absent parameters keep them.
 * `function` is for messages.
 * STATUS_INVALID_ARGUMENT: "parameter 'unti' is not known to service-restart (did you mean 'unit'?)". */
enum status params_decode(const char *function, const struct param_field *fields, size_t n,
                          const json_t *body, struct arena *a, void *ret_params, struct error *err) MUST_USE;
/* Is it what the pattern allows? For values that do not come as parameters: a secret, an entry of a list. */
bool param_pattern_matches(enum param_pattern pattern, struct strview text);

#endif
