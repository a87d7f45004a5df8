/* The bearer token that callers have to show: read at the start, and again as its file changes. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "grpc/grpc_impl.h"
#include "log/log.h"

#define TOKEN_MAX     4096
#define TOKEN_MIN     16
#define TOKEN_LOOK_MS 2000

struct grpc_token {
    const char *file; /* arena */
    char *text;       /* owned, wiped */
    size_t len;
    struct arena arena;
};

struct token_reading {
    const char *file;
    struct arena arena;
    struct strview text;
    enum status status;
    struct error err;
};

static void read_token(void *arg)
{
    struct token_reading *r = arg;
    r->status = file_read(&r->arena, r->file, TOKEN_MAX, &r->text, &r->err);
    r->text = sv_trim(r->text);
    if (r->status == STATUS_OK && r->text.len < TOKEN_MIN)
        r->status = error_set(&r->err, STATUS_INVALID_ARGUMENT, "%s: a token has at least %d characters",
                              r->file, TOKEN_MIN);
}

static void forget(char *text, size_t len)
{
    mem_wipe(text, len);
    free(text);
}

/* One that cannot be read leaves the one before in force. */
static enum status look(struct grpc_token *t, struct error *err)
{
    struct token_reading r = {.file = t->file};
    work_run(read_token, &r);
    if (r.status == STATUS_OK && !sv_eq_constant_time(r.text, sv_n(t->text, t->len))) {
        char *text = mem_alloc(r.text.len);
        memcpy(text, r.text.ptr, r.text.len);
        forget(t->text, t->len);
        t->text = text;
        t->len = r.text.len;
    }
    mem_wipe((char *)r.text.ptr, r.text.len);
    arena_release(&r.arena);
    if (err != NULL) *err = r.err;
    return r.status;
}

static void token_fiber(void *arg)
{
    struct grpc_token *t = arg;
    struct error err;
    bool was_told = false;
    while (sleep_ms(TOKEN_LOOK_MS) == STATUS_OK) {
        enum status s = look(t, &err);
        if (s != STATUS_OK && !was_told)
            log_warn("grpc", "the token was not renewed: the one before stays",
                     LOG_STR("reason", err.message));
        was_told = s != STATUS_OK;
    }
}

enum status grpc_token_start(struct grpc_server *s, const char *file, struct error *err)
{
    if (file == NULL) return STATUS_OK;
    struct grpc_token *t = mem_zalloc(1, sizeof(*t));
    s->token = t;
    t->file = arena_cstr(&t->arena, sv(file));
    enum status st = look(t, err);
    return st == STATUS_OK ? fiber_scope_spawn(&s->upkeep, token_fiber, t, err) : st;
}

void grpc_token_free(struct grpc_token *t)
{
    if (t == NULL) return;
    forget(t->text, t->len);
    arena_release(&t->arena);
    free(t);
}

/* Kubernetes' probes carry none. */
bool server_may_call(const struct grpc_server *s, const struct grpc_call *call)
{
    static const struct strview scheme = {"bearer ", sizeof("bearer ") - 1};
    if (s->token == NULL || call->service == &grpc_health_service) return true;
    struct strview given = grpc_call_metadata(call, SV("authorization"));
    if (given.len < scheme.len || !sv_eq_nocase(sv_sub(given, 0, scheme.len), scheme)) return false;
    return sv_eq_constant_time(sv_trim(sv_sub(given, scheme.len, given.len)),
                               sv_n(s->token->text, s->token->len));
}
