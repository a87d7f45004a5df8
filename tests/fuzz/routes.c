/* Requests of any kind at a real gateway with the audit log behind it, by somebody who may: what faas-cli
 * sends to deploy, scale, read logs and keep secrets, and what Loki's clients ask for. No executable is
 * there, so nothing is started. Every request is answered, and an answer that says it is JSON is.
 *
 * Input: "METHOD TARGET" up to a line end, header lines up to an empty one, then the body.
 *
 * Reads: gateway/gateway.c gateway/routes_system.c gateway/routes_secrets.c gateway/routes_function.c
 * gateway/deployed.c gateway/function_secrets.c functions/audit/loki.c functions/audit/query.c
 * functions/audit/answer.c functions/audit/records.c */
#include "gateway/gateway_impl.h"

#include <stdlib.h>

#include "folder.h"
#include "functions/audit/audit.h"
#include "in_loop.h"
#include "replay.h"
#include "wire.h"

#define ANSWER_BYTES (1024 * 1024)
#define PATIENCE_NS  (10 * NS_PER_S)
#define LOGIN        "Basic YWRtaW46ZnV6eg==" /* admin:fuzz */

static const struct core_function *const core[] = {&audit_function};
static void *core_states[1];
static struct gateway *gateway;
static char door[FOLDER_PATH_MAX];

static void append_some(struct journal *j)
{
    struct error err;
    for (int i = 0; i < 20; i++) {
        struct record r = {.kind = i % 2 == 0 ? RECORD_NOTE : RECORD_FREEZE,
                           .time_ns = clock_unix_ns(),
                           .message = SV("words"),
                           .function = i % 4 == 0 ? SV("notify") : SV("")};
        enum status s = journal_append(j, &r, 1, NULL, &err);
        assert(s == STATUS_OK);
    }
    enum status s = journal_wait_durable(j, journal_last_seq(j), 0, &err);
    assert(s == STATUS_OK);
}

static int listen_here(void)
{
    (void)snprintf(door, sizeof(door), "%s", folder_path("door"));
    return wire_listen(door);
}

/* On the first input, within its fiber. */
static void prepare(void)
{
    static char dir[FOLDER_PATH_MAX], functions[FOLDER_PATH_MAX], journal_dir[FOLDER_PATH_MAX];
    struct journal *journal = NULL;
    struct error err;
    if (gateway != NULL) return;
    folder_make("secrets");
    (void)folder_put("secrets/basic-auth-user", SV("admin"));
    (void)folder_put("secrets/basic-auth-password", SV("fuzz"));
    (void)snprintf(dir, sizeof(dir), "%s", folder());
    (void)snprintf(functions, sizeof(functions), "%s", folder_path("no-functions"));
    (void)snprintf(journal_dir, sizeof(journal_dir), "%s", folder_path("journal"));
    const struct journal_cfg cfg = {.dir = journal_dir};
    enum status s = journal_open_sqlite(the_loop(), &cfg, &journal, &err);
    const struct core_env env = {
        .loop = the_loop(), .journal = journal, .dir = dir, .tenant = SV("default"), .cluster = SV("local")};
    if (s == STATUS_OK) s = audit_function.start(&env, &core_states[0], &err);
    if (s == STATUS_OK) s = journal_fold(journal, &err);
    assert(s == STATUS_OK);
    append_some(journal);
    const struct gateway_cfg gateway_cfg = {.dir = dir,
                                            .functions_dir = functions,
                                            .shim_path = "/bin/false",
                                            .host = "127.0.0.1",
                                            .listen_fd = listen_here(),
                                            .cluster = SV("local"),
                                            .core = core,
                                            .core_states = core_states,
                                            .n_core = 1};
    s = gateway_new(the_loop(), &gateway_cfg, journal, &gateway, &err);
    if (s == STATUS_OK) s = gateway_listen(gateway, &err);
    assert(s == STATUS_OK);
}

static struct strview request_of(struct strview rest, struct arena *a)
{
    struct strview line = {0}, headers = SV("");
    struct strview first = {0};
    (void)sv_next(&rest, '\n', &first);
    while (sv_next(&rest, '\n', &line) && line.len > 0)
        headers = arena_printf(a, "%.*s%.*s\r\n", SV_ARG(headers), SV_ARG(line));
    if (!sv_contains(headers, SV("uthorization:")))
        headers = arena_printf(a, "%.*sauthorization: " LOGIN "\r\n", SV_ARG(headers));
    struct strview head = arena_printf(
        a, "%.*s HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n%.*scontent-length: %zu\r\n\r\n",
        SV_ARG(first), SV_ARG(headers), rest.len);
    char *whole = arena_alloc(a, head.len + rest.len + 1);
    memcpy(whole, head.ptr, head.len);
    if (rest.len > 0) memcpy(whole + head.len, rest.ptr, rest.len);
    return sv_n(whole, head.len + rest.len);
}

static void check_answer(struct strview answer)
{
    size_t head = 0;
    while (head + 4 <= answer.len && memcmp(answer.ptr + head, "\r\n\r\n", 4) != 0)
        head++;
    struct strview lines = sv_sub(answer, 0, head), body = sv_sub(answer, head + 4, answer.len);
    assert(answer.len == 0 || sv_starts_with(answer, SV("HTTP/1.1 ")));
    if (!sv_contains(lines, SV("content-type: application/json")) || body.len == 0 ||
        sv_contains(lines, SV("chunked")))
        return;
    json_t *value = NULL;
    enum status s = json_parse(body, JSON_DECODE_ANY | JSON_ALLOW_NUL, &value, NULL);
    assert(s == STATUS_OK);
    json_release(value);
}

static void play(void *arg)
{
    struct strview *request = arg;
    size_t n = 0;
    prepare();
    char *answer = malloc(ANSWER_BYTES);
    int64_t deadline_ns = clock_monotonic_ns() + PATIENCE_NS;
    int fd = wire_dial(door);
    wire_send(fd, *request, deadline_ns);
    bool is_whole = wire_read(fd, answer, ANSWER_BYTES, &n, deadline_ns);
    assert(is_whole);
    if (n < ANSWER_BYTES) check_answer(sv_n(answer, n));
    (void)close(fd);
    while (server_connections(gateway->server) > 0 || server_inflight(gateway->server) > 0)
        (void)!fiber_yield();
    free(answer);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct arena arena = {0};
    struct strview request = request_of(sv_n((const char *)bytes, n), &arena);
    in_loop(play, &request);
    arena_release(&arena);
    return 0;
}
