#include "scene.h"

#include <criterion/criterion.h>
#include <criterion/options.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "base/file.h"
#include "functions.h"
#include "log/log.h"

#define AS_FUNCTION "--as-function"
#define PATIENCE_NS (10 * NS_PER_S)

/* One binary is the tests and their functions. */
int main(int argc, char **argv)
{
    if (argc >= 3 && strcmp(argv[1], AS_FUNCTION) == 0) {
        argv[2] = argv[0];
        return test_function_main(getenv("BALM_TEST_FUNCTION") != NULL ? getenv("BALM_TEST_FUNCTION")
                                                                       : "plain",
                                  argc - 2, argv + 2);
    }
    struct criterion_test_set *tests = criterion_initialize();
    int rc = 0;
    if (criterion_handle_args(argc, argv, true)) rc = criterion_run_all_tests(tests) ? 0 : 1;
    criterion_finalize(tests);
    return rc;
}

void check_failed(const char *file, int line, const char *what, const char *why)
{
    (void)fprintf(stderr, "%s:%d: %s%s%s\n", file, line, what, why != NULL ? ": " : "",
                  why != NULL ? why : "");
    _exit(1); /* not by abort: there is nothing that a core file would tell */
}

/* ---- files ---- */

const char *scene_path(struct scene *s, const char *name)
{
    return arena_printf(&s->arena, "%s/%s", s->folder, name).ptr;
}

const char *scene_write(struct scene *s, const char *name, const char *text, unsigned mode)
{
    const char *path = scene_path(s, name);
    CHECK_OK(s, file_write_atomic(path, sv(text), (mode_t)mode, &s->err));
    CHECK(chmod(path, (mode_t)mode) == 0);
    return path;
}

bool scene_has(struct scene *s, const char *name)
{
    return access(scene_path(s, name), F_OK) == 0;
}

void scene_script(struct scene *s, const char *name, const char *body)
{
    const char *file = arena_printf(&s->arena, "functions/%s", name).ptr;
    (void)scene_write(s, file, arena_printf(&s->arena, "#!/bin/sh\n%s\n", body).ptr, 0755);
}

static const char *own_path(struct arena *a)
{
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
    CHECK(n > 0);
    return arena_copy(a, sv_n(path, (size_t)n)).ptr;
}

const char *shim_path(struct arena *a)
{
    char *path = arena_cstr(a, sv(own_path(a)));
    for (int i = 0; i < 3; i++) /* B/tests/unit/gateway */
        *strrchr(path, '/') = '\0';
    return arena_printf(a, "%s/balm-shim", path).ptr;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static void make_folder(struct scene *s)
{
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(s->folder, sizeof(s->folder), "%s/balm-gateway-XXXXXX", tmp != NULL ? tmp : "/tmp");
    CHECK(mkdtemp(s->folder) != NULL);
    CHECK_OK(s, dir_make(scene_path(s, "functions"), 0755, &s->err));
    const char *own = own_path(&s->arena);
    static const char *const names[] = {"plain", "bot"};
    for (size_t i = 0; i < 2; i++)
        scene_script(
            s, names[i],
            arena_printf(&s->arena, "BALM_TEST_FUNCTION=%s exec %s " AS_FUNCTION " - \"$@\"", names[i], own)
                .ptr);
    s->cfg = (struct gateway_cfg){.dir = scene_path(s, "data"),
                                  .functions_dir = scene_path(s, "functions"),
                                  .shim_path = shim_path(&s->arena),
                                  .function_read_paths =
                                      arena_printf(&s->arena, "%s:%s/functions", own, s->folder).ptr,
                                  .function_write_paths = s->folder,
                                  .host = "127.0.0.1",
                                  .cluster = SV("test")};
}

/* ---- the gateway ---- */

static void read_login(struct scene *s)
{
    const struct gateway_secrets *g = &s->gateway->secrets;
    struct strview plain = arena_printf(&s->arena, "%.*s:%.*s", SV_ARG(g->user), SV_ARG(g->password));
    unsigned char encoded[512];
    int n = EVP_EncodeBlock(encoded, (const unsigned char *)plain.ptr, (int)plain.len);
    s->login = arena_printf(&s->arena, "Basic %.*s", n, (char *)encoded);
}

enum status scene_start(struct scene *s)
{
    struct journal_cfg cfg = {.dir = scene_path(s, "journal")};
    CHECK_OK(s, journal_open_sqlite(s->loop, &cfg, &s->journal, &s->err));
    enum status st = gateway_new(s->loop, &s->cfg, s->journal, &s->gateway, &s->err);
    if (st != STATUS_OK) {
        s->gateway = NULL;
        journal_close(s->journal);
        s->journal = NULL;
        return st;
    }
    CHECK_OK(s, journal_fold(s->journal, &s->err));
    CHECK_OK(s, gateway_listen(s->gateway, &s->err));
    CHECK_OK(s, upstream_new(s->loop, NULL, "127.0.0.1", gateway_port(s->gateway), 0, &s->door, &s->err));
    read_login(s);
    return STATUS_OK;
}

void scene_stop(struct scene *s)
{
    if (s->gateway == NULL) return;
    upstream_free(s->door);
    gateway_drain(s->gateway, clock_monotonic_ns() + PATIENCE_NS);
    gateway_free(s->gateway);
    journal_close(s->journal);
    s->gateway = NULL;
    s->journal = NULL;
}

struct act {
    struct scene *s;
    scene_fn *script;
    bool has_gateway;
};

static void act_fiber(void *arg)
{
    const struct act *a = arg;
    if (a->has_gateway) CHECK_OK(a->s, scene_start(a->s));
    a->script(a->s);
    scene_stop(a->s);
}

static void run(scene_fn *prepare, scene_fn *script, bool has_gateway)
{
    struct scene s = {0};
    struct act a = {.s = &s, .script = script, .has_gateway = has_gateway};
    log_set_level(getenv("BALM_TEST_LOG") != NULL ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR);
    make_folder(&s);
    if (prepare != NULL) prepare(&s);
    unsigned before = 0;
    CHECK_OK(&s, loop_new(&s.loop, &s.err));
    before = open_descriptors();
    CHECK_OK(&s, loop_run_fiber(s.loop, act_fiber, &a, &s.err));
    cr_expect_leq(open_descriptors(), before + 1, "descriptors: %u before, %u after", before,
                  open_descriptors()); /* the signal pipe of libuv */
    loop_free(s.loop);
    (void)nftw(s.folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    arena_release(&s.arena);
}

void play(scene_fn *prepare, scene_fn *script)
{
    run(prepare, script, true);
}

void play_without_gateway(scene_fn *script)
{
    run(NULL, script, false);
}

/* ---- asking ---- */

struct answer ask_with(struct scene *s, const char *method, const char *path, const char *body,
                       const struct http_header *headers, size_t n)
{
    struct http_reply reply = {0};
    struct forward_spec spec = {.method = sv(method),
                                .target = sv(path),
                                .authority = SV("localhost"),
                                .headers = headers,
                                .n_headers = n,
                                .body = sv(body),
                                .deadline_ns = clock_monotonic_ns() + 3 * PATIENCE_NS};
    enum status st = http_forward(s->door, &spec, &s->arena, &reply, &s->err);
    return (struct answer){.status = st,
                           .code = reply.status,
                           .body = reply.body,
                           .headers = reply.headers,
                           .n_headers = reply.n_headers};
}

struct answer ask(struct scene *s, const char *method, const char *path, const char *body)
{
    struct http_header headers[2];
    size_t n = 0;
    if (body != NULL) headers[n++] = (struct http_header){SV("content-type"), SV("application/json")};
    if (sv_starts_with(sv(path), SV("/system/")))
        headers[n++] = (struct http_header){SV("authorization"), s->login};
    return ask_with(s, method, path, body, headers, n);
}

struct strview answer_header(const struct answer *a, const char *name)
{
    return http_header_get(a->headers, a->n_headers, sv(name));
}

json_t *answer_json(const struct answer *a)
{
    json_t *value = NULL;
    CHECK(a->status == STATUS_OK && json_parse(a->body, JSON_DECODE_ANY, &value, NULL) == STATUS_OK);
    return value;
}

/* ---- looking ---- */

bool await(bool (*condition)(void *arg), void *arg)
{
    int64_t end_ns = clock_monotonic_ns() + PATIENCE_NS;
    while (!condition(arg)) {
        if (clock_monotonic_ns() > end_ns) return false;
        (void)!sleep_ms(2);
    }
    return true;
}

struct deployment *deployment_of(struct scene *s, const char *name)
{
    return supervisor_find(s->gateway, sv(name));
}

unsigned open_descriptors(void)
{
    unsigned n = 0;
    DIR *dir = opendir("/proc/self/fd");
    CHECK(dir != NULL);
    while (readdir(dir) != NULL)
        n++;
    (void)closedir(dir);
    return n - 3; /* ., .. and the folder itself */
}

bool is_alive(pid_t pid)
{
    char path[64], text[512];
    (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    ssize_t n = read(fd, text, sizeof(text) - 1);
    (void)close(fd);
    if (n <= 0) return false;
    text[n] = '\0';
    const char *after = strrchr(text, ')');
    return after != NULL && after[2] != 'Z' && after[2] != 'X';
}

pid_t read_pid(const char *path)
{
    struct arena a = {0};
    struct strview text;
    uint64_t pid = 0;
    struct error ignored;
    if (file_read(&a, path, 64, &text, &ignored) == STATUS_OK) (void)!sv_parse_u64(sv_trim(text), &pid);
    arena_release(&a);
    return (pid_t)pid;
}

const char *stack_of(struct scene *s, const char *name, const char *more)
{
    return arena_printf(
               &s->arena,
               "version: 1.0\nprovider:\n  name: openfaas\nfunctions:\n  %s:\n    image: %s:latest\n%s", name,
               name, more)
        .ptr;
}

/* A function is found by its image: its name without what comes after a '.' */
enum status deploy_named(struct scene *s, const char *name, const char *image)
{
    struct deployment_spec spec = {.arena = &s->arena, .name = sv(name), .image = sv(image)};
    return supervisor_deploy(s->gateway, &spec, &s->err);
}
