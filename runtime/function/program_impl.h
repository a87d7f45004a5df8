/* Shared by program*.c alone.
 *
 *   program.c         main(), settings, parameters          program_run.c     one process a request
 *   program_http.c    one process for all, at a port        program_result.c  what a bot's answer means
 *   program_env.c     environments */
#ifndef BALM_FUNCTION_PROGRAM_IMPL_H
#define BALM_FUNCTION_PROGRAM_IMPL_H

#include "function/function.h"
#include "function/manifest.h"

struct program {
    const char *const *argv;
    const char *name;     /* for messages: argv[0] without its folders */
    const char *function; /* whose parameters they are: as it is deployed, else the name */
    const char *folder;
    bool acts, has_manifest;
    struct manifest params;     /* of its manifest, only what says how they are decoded */
    const char *api_key_secret; /* NULL: it asks for no key */
    const char *openapi_json;   /* NULL: its manifest does not say enough */
    /* Settings. */
    const char *mode, *upstream_url, *http_upstream_url, *content_type;
    bool combine_output;
    int64_t max_output_bytes;
};

/* What a request brings: the parameters, or its body where there are none. */
struct program_params {
    struct strview json;
    const char **env; /* BALM_PARAM_… */
    size_t n_env;
};

/* Static strings and views into `a`; ours but for what the platform told us alone, `first` before all. */
const char *const *program_env_plain(struct arena *a, const char *const *first, size_t n_first);
/* The same for one request. */
const char *const *program_env_request(const struct invocation *inv, const struct program_params *input);

enum status program_run(const struct program *p, struct invocation *inv, const struct program_params *input,
                        struct result *ret, struct error *err) MUST_USE;

/* Reads upstream_url. STATUS_INVALID_ARGUMENT: it is none of this machine. Before the next two. */
enum status program_http_init(const struct program *p, struct error *err) MUST_USE;
/* function_def.attend and .is_ready. */
void program_http_attend(void);
bool program_http_is_ready(void);
enum status program_http_forward(const struct program *p, struct invocation *inv, struct strview input,
                                 struct result *ret, struct error *err) MUST_USE;

/* The object that an acting program answers. STATUS_UNKNOWN: it is none, or says so itself; STATUS_INTERNAL:
 * state "failed". */
enum status program_result(const struct program *p, struct strview text, struct result *ret,
                           struct error *err) MUST_USE;

#endif
