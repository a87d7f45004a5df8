/* Programs of the allow list: an argv that the operator wrote, with places for parameters that he bounded.
 * What a bot gives fills those places and nothing else; no shell is involved.
 *
 *   programs:
 *     flush-cache:                       # the only names a bot can use
 *       functions: [run-program]         # who may
 *       command: [/usr/local/bin/flush, --level, "${level}", "${host}:11211"]
 *                                        # argv; the first word is an absolute path as it stands
 *       timeout: 30s                     # then its whole session is killed; 1s to 90s (30s)
 *       params:                          # as of a bot (function/manifest.h), all but text-list
 *         level: {type: integer, default: 1, min: 1, max: 9}
 *         host: {type: text, required: true, pattern: name}
 *
 * A place is ${name}, also inside of a word; each parameter has one, and each place its parameter. A value
 * stands in its word as it is: blanks do not cut it, and one that begins a word must not begin with '-', or
 * the program might take it for an option. */
#ifndef BALM_GATEWAY_BROKER_PROGRAM_H
#define BALM_GATEWAY_BROKER_PROGRAM_H

#include "base/json.h"
#include "config/yaml.h"
#include "function/manifest.h"

struct broker_program {
    struct strview name;
    struct yaml_text_list functions;
    struct yaml_text_list command;
    int64_t timeout_ns;
    struct manifest params; /* alone */
};

/* Message: FILE:LINE:COLUMN. On success ret_program is to be released; its texts are `a`'s. */
enum status broker_program_read(const struct yaml_document *doc, const struct yaml_node *node,
                                struct arena *a, struct broker_program *ret_program,
                                struct error *err) MUST_USE;
/* Frees what it points at. */
void broker_program_release(struct broker_program *p);
bool broker_program_allows(const struct broker_program *p, struct strview function);
/* arguments: object of name -> value, or NULL; the same checks as of a bot's parameters. ret_words: the argv,
 * in the arena. STATUS_INVALID_ARGUMENT names the parameter. */
enum status broker_program_argv(const struct broker_program *p, const json_t *arguments, struct arena *a,
                                struct yaml_text_list *ret_words, struct error *err) MUST_USE;

#endif
