/* What the tests' functions do, by path. They run as processes of their own: main() of scene.c becomes one of
 * them. */
#include "functions.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/file.h"
#include "loop/loop.h"

extern char **environ;

static uint64_t number_of(const struct http_req *req)
{
    uint64_t n = 0;
    (void)!sv_parse_u64(req->query, &n);
    return n;
}

static json_t *list_environment(void)
{
    json_t *list = json_array();
    for (char **e = environ; *e != NULL; e++)
        (void)json_array_append_new(list, json_text(sv(*e)));
    return list;
}

/* What was inherited, seen before the runtime opened anything is no longer visible: so each is named by what
 * it is. */
static json_t *list_descriptors(void)
{
    json_t *list = json_object();
    DIR *dir = opendir("/proc/self/fd");
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        char target[256] = "";
        ssize_t n = readlinkat(dirfd(dir), e->d_name, target, sizeof(target) - 1);
        if (n > 0) (void)json_object_set_new(list, e->d_name, json_text(sv_n(target, (size_t)n)));
    }
    (void)closedir(dir);
    return list;
}

static json_t *list_limits(void)
{
    struct rlimit core = {0}, data = {0};
    (void)getrlimit(RLIMIT_CORE, &core);
    (void)getrlimit(RLIMIT_DATA, &data);
    return json_pack("{s:I, s:I, s:i, s:b}", "core", (json_int_t)core.rlim_max, "data",
                     (json_int_t)(data.rlim_max > INT64_MAX ? -1 : (int64_t)data.rlim_max), "noNewPrivs",
                     prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), "isSessionLeader", getsid(0) == getpid());
}

static enum status reply_json(struct result *ret, json_t *value)
{
    struct strview text = json_canonical(ret->arena, value);
    json_release(value);
    return result_reply(ret, 200, SV("application/json"), text);
}

static enum status plain_handle(struct invocation *inv, const void *params, struct result *ret,
                                struct error *err)
{
    const struct http_req *req = inv->req;
    (void)params, (void)err;
    if (sv_eq(req->path, SV("/crash"))) abort();
    if (sv_eq(req->path, SV("/exit"))) _exit((int)number_of(req));
    if (sv_eq(req->path, SV("/sleep"))) (void)!sleep_ms(number_of(req));
    if (sv_eq(req->path, SV("/pid")))
        return result_reply(ret, 200, SV("text/plain"), arena_printf(ret->arena, "%d", (int)getpid()));
    if (sv_eq(req->path, SV("/environment"))) return reply_json(ret, list_environment());
    if (sv_eq(req->path, SV("/descriptors"))) return reply_json(ret, list_descriptors());
    if (sv_eq(req->path, SV("/limits"))) return reply_json(ret, list_limits());
    if (sv_eq(req->path, SV("/target"))) return result_reply(ret, 200, SV("text/plain"), req->target);
    if (sv_eq(req->path, SV("/say")))
        for (uint64_t i = 0; i < number_of(req); i++)
            (void)printf("line %llu\n", (unsigned long long)i), (void)fflush(stdout);
    if (sv_eq(req->path, SV("/headers"))) {
        json_t *headers = json_object();
        for (size_t i = 0; i < req->n_headers; i++)
            (void)json_object_setn_new(headers, req->headers[i].name.ptr, req->headers[i].name.len,
                                       json_text(req->headers[i].value));
        return reply_json(ret, headers);
    }
    return result_reply(ret, 200, http_req_header(req, SV("content-type")), req->body);
}

/* {"do":"sleep","ms":N} looks at its permission every 10 ms, unless "stubborn";
 * {"do":"service-restart","subject":…} asks the broker. */
static enum status bot_handle(struct invocation *inv, const void *params, struct result *ret,
                              struct error *err)
{
    json_t *body = NULL, *reply = NULL;
    enum status s = json_parse(inv->req->body, 0, &body, err);
    (void)params;
    if (s != STATUS_OK) return s;
    struct strview what = arena_copy(inv->arena, json_get_text(body, "do")),
                   subject = arena_copy(inv->arena, json_get_text(body, "subject"));
    json_int_t ms = json_integer_value(json_object_get(body, "ms"));
    bool is_stubborn = json_is_true(json_object_get(body, "stubborn"));
    json_release(body);
    if (sv_eq(what, SV("crash"))) abort();
    if (sv_eq(what, SV("sleep"))) {
        for (json_int_t slept = 0; slept < ms && s == STATUS_OK; slept += 10) {
            if (!is_stubborn) s = invocation_check(inv, err);
            if (s == STATUS_OK) s = sleep_ms(10);
        }
        return s == STATUS_OK ? result_done(ret, "slept") : error_set(err, s, "stopped");
    }
    s = host_act(inv, what, subject, &reply, err);
    if (s != STATUS_OK) return s;
    result_set_text(ret, "reply", json_canonical(inv->arena, reply));
    json_release(reply);
    return result_done(ret, "asked");
}

static const struct function_def plain_def = {
    .name = "plain",
    .summary = "answers",
    .handle = plain_handle,
    .manifest_json = "{\"acts\":false,\"name\":\"plain\",\"summary\":\"<b>answers</b>\","
                     "\"schema\":{},\"reply\":{},\"timeout\":\"20s\"}"};
static const struct function_def bot_def = {
    .name = "bot",
    .summary = "acts",
    .acts = true,
    .on_unknown = ON_UNKNOWN_RERUN,
    .handle = bot_handle,
    .manifest_json =
        "{\"acts\":true,\"name\":\"bot\",\"on_unknown\":\"rerun\",\"summary\":\"acts\",\"schema\":{},"
        "\"reply\":{},\"timeout\":\"20s\"}"};

int test_function_main(const char *name, int argc, char **argv)
{
    return function_main(strcmp(name, "bot") == 0 ? &bot_def : &plain_def, argc, argv);
}
