/* YAML at the border: runbooks, stack.yml, bot.yaml, the broker's allow list. libyaml's event parser fills
 * a bounded node tree in which every node knows where it stands; tables decode it. No aliases or anchors,
 * no tags, no merge keys, no duplicate keys; depth ≤ 32, ≤ 1 MiB, ≤ 100 000 nodes: a file cannot make us
 * loop, explode or guess. Pure and synchronous (worker thread for big ones). */
#ifndef BALM_CONFIG_YAML_H
#define BALM_CONFIG_YAML_H

#include "base/json.h"

#define YAML_BYTES_MAX (1024 * 1024)
#define YAML_DEPTH_MAX 32
#define YAML_NODES_MAX 100000

enum yaml_type { YAML_SCALAR, YAML_LIST, YAML_MAP };

struct yaml_node {
    enum yaml_type type;
    unsigned line, column;   /* 1-based */
    struct strview text;     /* scalar's value */
    bool is_plain;           /* scalar written without quotes: may be null, a number, a boolean */
    struct yaml_node *first; /* children of a list; values of a map, in file order */
    struct yaml_node *next;
    struct strview key; /* of a map's value */
    unsigned key_line, key_column;
    size_t n_children;
};

/* One fault of several: the same sentence that an error would be. */
typedef void yaml_fault_cb(void *arg, const struct error *fault);

struct yaml_document {
    const char *file;       /* for messages */
    struct yaml_node *root; /* all in the arena */
    /* Set after the parse by who wants all faults and not the first alone: yaml_error() tells each, and
     * yaml_decode() goes on behind it. NULL: it does not. */
    yaml_fault_cb *on_fault;
    void *fault_arg;
};

/* Exactly one document. Message: FILE:LINE:COLUMN: what. An empty file is STATUS_INVALID_ARGUMENT. */
enum status yaml_parse(struct arena *a, const char *file, struct strview text, struct yaml_document *ret_doc,
                       struct error *err) MUST_USE;
/* The same of a file. STATUS_NOT_FOUND: there is none at `path`. */
enum status yaml_read(struct arena *a, const char *path, struct yaml_document *ret_doc,
                      struct error *err) MUST_USE;
/* Fill *err with "FILE:LINE:COLUMN: …" for a node and return STATUS_INVALID_ARGUMENT. */
enum status yaml_error(const struct yaml_document *doc, const struct yaml_node *at, struct error *err,
                       const char *fmt, ...) PRINTF_LIKE(4, 5);
/* Where a line and column lie, as a person would say it: "steps[1].with.root", "guardrails.cooldwn"; empty
 * for the root. A value that begins there, or with is_key the key. In the arena; NULL: nothing begins there.
 */
const char *yaml_path_at(const struct yaml_document *doc, unsigned line, unsigned column, bool is_key,
                         struct arena *a);
/* Value of a map's key, or NULL. */
struct yaml_node *yaml_get(const struct yaml_node *map, struct strview key);
/* Core-schema reading of scalars: true/false, integers, null; everything else is text. Maps and lists
 * recurse. For params, manifests. */
json_t *yaml_to_json(const struct yaml_node *node);

/* ---- decoding by table ---- */

enum yaml_field_type {
    YAML_FIELD_TEXT,      /* struct strview */
    YAML_FIELD_INT,       /* int64_t, min..max */
    YAML_FIELD_DURATION,  /* int64_t ns; "30s", "5m" */
    YAML_FIELD_BYTES,     /* int64_t; "64MiB" */
    YAML_FIELD_BOOL,      /* bool */
    YAML_FIELD_ENUM,      /* int; names[] NULL-terminated, value = index */
    YAML_FIELD_NODE,      /* const struct yaml_node *: decoded by the caller */
    YAML_FIELD_TEXT_LIST, /* struct yaml_text_list; a single scalar counts as a list of one */
};

struct yaml_text_list {
    struct strview *items;
    size_t n;
};

struct yaml_field {
    const char *name;
    enum yaml_field_type type;
    size_t offset;
    bool is_required;
    int64_t min, max;         /* both 0: not checked; TEXT: length */
    const char *const *names; /* ENUM */
};

/* Decode a map into *ret_struct (zeroed or with defaults set by the caller). Unknown keys are refused with
 * the nearest known name: "runbooks/nginx.yaml:7:5: unknown field 'cooldwn' in guardrails (did you mean
 * 'cooldown'?)". `what` names the map in messages. With doc->on_fault, what is right of it is decoded all the
 * same; the status is that of the last fault. */
enum status yaml_decode(const struct yaml_document *doc, const struct yaml_node *map, const char *what,
                        const struct yaml_field *fields, size_t n_fields, struct arena *a, void *ret_struct,
                        struct error *err) MUST_USE;

#endif
