/* bot.yaml, a function's one source of truth: what it is, what it takes, what it may touch. `balm
 * generate` makes C, stack.yml's entry and the README's row from it; the platform reads it as JSON from
 * the executable (--describe).
 *
 *   name: disk-clean            # lower-case letters, digits, '-'; the folder's and the executable's name
 *   summary: Frees disk space…  # one line
 *   acts: true                  # changes something; on_unknown, touches, verify and undo are required then
 *   destructive: true           # what it removes cannot be made again                             (false)
 *   removes_series: false       # its act can remove the alerting series: a resolve proves nothing (false)
 *   tells_people: false         # all it does is tell people: it may be a runbook's escalation       (false)
 *   on_unknown: rerun           # an act whose answer was lost: reread | rerun | escalate
 *   timeout: 60s                # of one invocation, 1s to 1h                                      (30s)
 *   auth: signed                # signed (acting functions, always) | open | api-key               (by acts)
 *                               # api-key: callers show one of the secret NAME-api-key (function/api_key.h)
 *   params:
 *     older_than:               # a C identifier in lower case
 *       type: duration          # text | integer | boolean | duration | bytes | text-list
 *       required: false         # or a default, not both; neither: empty, 0, false
 *       default: 24h
 *       min: 1m                 # text: bytes (0 to 1024), text-list: entries (0 to 64)
 *       max: 8760h
 *       pattern: unit           # text, text-list: line | name | unit | path-absolute | url
 *       enum: [a, b]            # text, text-list
 *       description: …
 *       example: 1h             # must pass the checks above
 *   touches: {paths: [...], hosts: [...], units: [...], api: [...]}   # free-form names, lists of texts
 *   verify: how it checks that the act took effect
 *   undo: how it is taken back, or why it cannot be
 *   detail:                     # members of the reply's detail object
 *     bytesFreed: {type: integer, description: …}   # text | integer | boolean | text-list
 *   secrets: [notify-url]       # names of the secrets it reads
 *   environment: {disk_clean_roots: what it is for}
 *   removes_below: disk_clean_roots   # it removes files below the folders that this variable lists, ':'
 * between # them, or the secret of that name ('-' for '_', also a line each): the platform # gives it the
 * right to, whoever owns them (gateway/isolation.h)
 *
 * As JSON: the same members, defaults filled in, plus `schema` and `reply`: JSON Schema (2020-12) of the
 * parameters and of the detail. */
#ifndef BALM_FUNCTION_MANIFEST_H
#define BALM_FUNCTION_MANIFEST_H

#include "config/yaml.h"
#include "function/function.h"
#include "function/params.h"

#define MANIFEST_PARAMS_MAX 64

enum manifest_auth { MANIFEST_AUTH_OPEN, MANIFEST_AUTH_SIGNED, MANIFEST_AUTH_API_KEY };

struct manifest_param {
    struct strview name, description;
    int type;    /* enum param_type */
    int pattern; /* enum param_pattern */
    bool is_required, has_default;
    int64_t min, max;
    struct yaml_text_list names; /* n 0: any */
    /* One of these by type, zero where there is no default. */
    struct strview default_text;
    int64_t default_number;
    bool default_boolean;
    struct param_text_list default_list;
    json_t *default_json, *example; /* owned; NULL: none */
};

struct manifest_variable {
    struct strview name, description;
};

struct manifest {
    struct arena arena;
    struct strview name, summary, verify, undo, removes_below;
    bool acts, is_destructive, removes_series, tells_people;
    int on_unknown; /* enum on_unknown */
    int auth;       /* enum manifest_auth */
    int64_t timeout_ns;
    struct manifest_param *params; /* in the file's order */
    size_t n_params;
    struct yaml_text_list secrets; /* the one of its API keys last, if it asks for one */
    struct manifest_variable *environment;
    size_t n_environment;
    const struct yaml_node *touches; /* a map of lists, or NULL */
    json_t *json;                    /* owned: what --describe prints */
};

/* STATUS_INVALID_ARGUMENT: FILE:LINE:COLUMN and what is wrong. manifest_release() on success only. */
enum status manifest_read(const char *path, struct manifest *ret_manifest, struct error *err) MUST_USE;
/* The same from text; `file` is for messages. */
enum status manifest_parse(const char *file, struct strview text, struct manifest *ret_manifest,
                           struct error *err) MUST_USE;
/* Everything in it goes; a zeroed one is fine. */
void manifest_release(struct manifest *m);

/* The parameters alone, back from a manifest's JSON (what --describe printed). STATUS_NOT_FOUND: it has none;
 * STATUS_INVALID_ARGUMENT: they are not written as here, as a foreign function's may be. manifest_release()
 * on success only. */
enum status manifest_params_parse(const json_t *described, struct manifest *ret_manifest,
                                  struct error *err) MUST_USE;
/* Would the function take this value of this parameter? By its own decoder: type, range, pattern, enum. A
 * parameter that is not known is fine here. */
enum status manifest_check_value(const struct manifest *m, const char *name, const json_t *value,
                                 struct error *err) MUST_USE;

/* All of an invocation's parameters, checked by the same decoder. ret_complete (owned): each of them, the
 * absent ones with their defaults, numbers and booleans as such also where they came as texts; durations as
 * texts. STATUS_INVALID_ARGUMENT: as params_decode(). */
enum status manifest_complete(const struct manifest *m, const char *function, const json_t *body,
                              json_t **ret_complete, struct error *err) MUST_USE;

/* "service-restart" -> "service_restart". In the arena. */
struct strview manifest_identifier(struct arena *a, struct strview name);
/* The struct's member of a parameter: "settle" of type duration -> "settle_ns". In the arena. */
struct strview manifest_member(struct arena *a, const struct manifest_param *p);

#endif
