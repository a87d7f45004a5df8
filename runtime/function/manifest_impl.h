/* Shared by manifest.c and manifest_schema.c alone. */
#ifndef BALM_FUNCTION_MANIFEST_IMPL_H
#define BALM_FUNCTION_MANIFEST_IMPL_H

#include "function/manifest.h"

/* NULL-terminated, by enum param_type, param_pattern and on_unknown. */
extern const char *const manifest_type_names[];
extern const char *const manifest_pattern_names[];
extern const char *const manifest_on_unknown_names[];

struct manifest_detail {
    struct strview name, description;
    int type; /* enum param_type: TEXT, INTEGER, BOOLEAN or TEXT_LIST */
};

/* What holds its API keys is one of its secrets; a person need not say so. */
void manifest_add_key_secret(struct manifest *m);

/* Room for any parameter's member. */
union manifest_value {
    struct strview text;
    int64_t number;
    bool boolean;
    struct param_text_list list;
};

/* What the generated decoder has of a parameter, but for its place in a struct. In the arena. */
struct param_field manifest_param_field(struct arena *a, const struct manifest_param *p);

/* Owned by the caller: names of secrets; JSON Schemas. */
json_t *manifest_secrets(const struct manifest *m);
json_t *manifest_params_schema(const struct manifest *m);
json_t *manifest_detail_schema(const struct manifest_detail *details, size_t n);

/* removes_below names a variable of `environment`, of a function that is destructive. */
enum status manifest_check_removes(const struct manifest *m, const struct yaml_document *doc,
                                   struct error *err) MUST_USE;

#endif
