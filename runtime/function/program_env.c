#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/list.h"
#include "function/program_impl.h"

#define REQUEST_VARIABLES 16 /* without its headers */

extern char **environ;

struct env {
    const char **items;
    size_t n;
};

static struct env env_new(struct arena *a, size_t n_more)
{
    size_t n = 0;
    while (environ[n] != NULL)
        n++;
    return (struct env){.items = arena_array(a, n + n_more + 1, sizeof(char *))};
}

static bool has(const struct env *env, const char *item)
{
    size_t len = strcspn(item, "=") + 1;
    for (size_t i = 0; i < env->n; i++)
        if (strncmp(env->items[i], item, len) == 0) return true;
    return false;
}

/* The first one that sets a variable has it. */
static void add(struct env *env, const char *item)
{
    if (!has(env, item)) env->items[env->n++] = item;
}

static void add_text(struct env *env, struct arena *a, const char *name, struct strview value)
{
    add(env, arena_printf(a, "%s=%.*s", name, SV_ARG(value)).ptr);
}

/* Descriptors and switches of ours mean nothing to a program, or something wrong. */
static void add_own(struct env *env)
{
    static const char *const ours[] = {"BALM_LISTEN_FD=", "BALM_METRICS=", "BALM_FROZEN=", "BALM_HOST="};
    for (char **e = environ; *e != NULL; e++) {
        bool is_ours = false;
        for (size_t i = 0; i < ARRAY_LEN(ours); i++)
            is_ours = is_ours || strncmp(*e, ours[i], strlen(ours[i])) == 0;
        if (!is_ours) add(env, *e);
    }
}

const char *const *program_env_plain(struct arena *a, const char *const *first, size_t n_first)
{
    struct env env = env_new(a, n_first);
    for (size_t i = 0; i < n_first; i++)
        add(&env, first[i]);
    add_own(&env);
    return env.items;
}

/* "content-type" -> "Http_Content_Type": as Go writes header names, and '_' for '-'. */
static const char *header_variable(struct arena *a, struct strview name)
{
    char *text = arena_alloc(a, name.len + sizeof("Http_")), *at = text;
    (void)sv_put(&at, SV("Http_"));
    bool is_first = true;
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        if (is_first && c >= 'a' && c <= 'z') c = (char)(c - 'a' + 'A');
        is_first = name.ptr[i] == '-';
        *at++ = is_first ? '_' : c;
    }
    *at = '\0';
    return text;
}

static void add_invocation(struct env *env, const struct invocation *inv)
{
    struct arena *a = inv->arena;
    if (inv->intent.len == 0) return;
    add_text(env, a, "BALM_INTENT", inv->intent);
    add_text(env, a, "BALM_INCIDENT", inv->incident);
    add_text(env, a, "BALM_TARGET", inv->target);
    add_text(env, a, "BALM_ATTEMPT", arena_printf(a, "%u", inv->attempt));
    add_text(env, a, "BALM_TIME", rfc3339_text(a, inv->intent_unix_ns));
    add_text(env, a, "BALM_DEADLINE", rfc3339_text(a, inv->deadline_unix_ns));
}

/* Before the headers: "method: x" must not be taken for the method. The signature is nobody's but ours. */
const char *const *program_env_request(const struct invocation *inv, const struct program_params *input)
{
    const struct http_req *req = inv->req;
    struct arena *a = inv->arena;
    struct env env = env_new(a, req->n_headers + input->n_env + REQUEST_VARIABLES);
    add_invocation(&env, inv);
    for (size_t i = 0; i < input->n_env; i++)
        add(&env, input->env[i]);
    add_text(&env, a, "Http_Method", req->method);
    add_text(&env, a, "Http_Path", req->path);
    if (req->query.len > 0) add_text(&env, a, "Http_Query", req->query);
    if (req->authority.len > 0) add_text(&env, a, "Http_Host", req->authority);
    add_text(&env, a, "Http_Content_Length", arena_printf(a, "%zu", req->body.len));
    add_text(&env, a, "Http_ContentLength",
             arena_printf(a, "%zu", req->body.len)); /* an old name of the same */
    for (size_t i = 0; i < req->n_headers; i++)
        if (!sv_eq(req->headers[i].name, SV("ce-balmsignature")))
            add_text(&env, a, header_variable(a, req->headers[i].name), req->headers[i].value);
    add_own(&env);
    return env.items;
}
