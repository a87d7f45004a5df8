#include "function/function.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <dirent.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/list.h"
#include "function/invocation.h"
#include "function_process.h"
#include "loop/loop.h"

/* ---- the functions under test ---- */

static enum status sleep_as_asked(const struct http_req *req, struct error *err)
{
    struct strview ms;
    uint64_t n = 0;
    if (!http_query_get(req, SV("ms"), &ms) || sv_parse_u64(ms, &n) != STATUS_OK) return STATUS_OK;
    enum status s = sleep_ms(n);
    return s == STATUS_OK ? s : error_set(err, s, "sleep was cut short");
}

static enum status echo(struct invocation *inv, struct result *ret)
{
    struct strview id = http_req_header(inv->req, SV("ce-id"));
    struct strview type = http_req_header(inv->req, SV("content-type"));
    struct strview body = inv->req->body;
    if (id.len > 0) body = arena_printf(inv->arena, "%.*s:%.*s", SV_ARG(id), SV_ARG(body));
    return result_reply(ret, 0, type, body);
}

static enum status plain_handle(struct invocation *inv, const void *params, struct result *ret,
                                struct error *err)
{
    struct strview path = inv->req->path;
    (void)params;
    enum status s = sleep_as_asked(inv->req, err);
    if (s != STATUS_OK) return s;
    if (sv_eq(path, SV("/fail"))) return error_set(err, STATUS_UNAVAILABLE, "backend is away");
    if (sv_eq(path, SV("/silent-fail"))) return STATUS_INTERNAL;
    if (sv_eq(path, SV("/ready-no"))) return result_reply(ret, 503, SV("text/plain"), SV("warming up"));
    static char big[32 * 1024 * 1024]; /* more than the sockets' buffers hold */
    if (sv_eq(path, SV("/big"))) return result_reply(ret, 200, SV("text/plain"), sv_n(big, sizeof(big)));
    if (sv_eq(path, SV("/state"))) {
        result_set_int(ret, "bytes", 5);
        return result_unchanged(ret, "has 5 bytes");
    }
    if (sv_eq(path, SV("/call-id"))) return result_reply(ret, 201, SV("text/plain"), inv->call_id);
    return echo(inv, ret);
}

static const struct function_def plain = {
    .name = "plain", .summary = "for tests", .handle = plain_handle, .manifest_json = "{\"name\":\"plain\"}"};

#define KEY             "0123456789abcdef0123456789abcdef"
#define KEY_HEADER(end) "x-api-key: " KEY end "\r\n"

static enum status show_headers(struct invocation *inv, const void *params, struct result *ret,
                                struct error *err)
{
    struct strview all = {0};
    (void)params;
    (void)err;
    for (size_t i = 0; i < inv->req->n_headers; i++)
        all = arena_printf(inv->arena, "%.*s%.*s: %.*s\n", SV_ARG(all), SV_ARG(inv->req->headers[i].name),
                           SV_ARG(inv->req->headers[i].value));
    return result_reply(ret, 200, SV("text/plain"), all);
}

struct actor_params {
    struct strview what;
};

static enum status actor_decode(const json_t *body, struct arena *a, void *ret_params, struct error *err)
{
    struct actor_params *p = ret_params;
    p->what = arena_copy(a, json_get_text(body, "what"));
    return p->what.len > 0 ? STATUS_OK : error_set(err, STATUS_INVALID_ARGUMENT, "what: is required");
}

/* Says what it did by an answer only; "forever" acts until it is told not to. */
static enum status actor_handle(struct invocation *inv, const void *params, struct result *ret,
                                struct error *err)
{
    const struct actor_params *p = params;
    json_t *reply = NULL;
    enum status s = STATUS_OK;
    if (sv_eq(p->what, SV("refuse"))) return result_refused(ret, "not now");
    if (sv_eq(p->what, SV("forget"))) return STATUS_OK;
    if (sv_eq(p->what, SV("sleep"))) s = sleep_ms(60000);
    if (sv_eq(p->what, SV("host"))) s = host_act(inv, SV("service-status"), SV("nginx"), &reply, err);
    while (s == STATUS_OK && sv_eq(p->what, SV("forever"))) {
        s = invocation_check(inv, err);
        if (s == STATUS_OK) s = sleep_ms(5);
    }
    json_release(reply);
    if (s != STATUS_OK) return err->code == s ? s : error_set(err, s, "interrupted");
    result_set_text(ret, "intent", inv->intent);
    ret->undo = SV("balm undo it");
    return result_done(ret, "did %.*s to %.*s", SV_ARG(p->what), SV_ARG(inv->target));
}

static const struct function_def actor = {.name = "actor",
                                          .summary = "for tests",
                                          .acts = true,
                                          .params_bytes = sizeof(struct actor_params),
                                          .decode = actor_decode,
                                          .handle = actor_handle,
                                          .manifest_json = "{}"};

/* ---- set-up ---- */

static struct function_process process, second;
static char answer[ANSWER_MAX], folder[256], lock_path[300];
static struct arena arena;

#define ENV(...) ((const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})
#define START(def, ...)                                                                                      \
    function_start(&process, def, ENV("port=0", "metrics_port=0" __VA_OPT__(, ) __VA_ARGS__))

static void init(void)
{
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(folder, sizeof(folder), "%s/functionXXXXXX", tmp != NULL ? tmp : P_tmpdir);
    cr_assert_not_null(mkdtemp(folder));
    (void)snprintf(lock_path, sizeof(lock_path), "%s/.lock", folder);
    (void)setenv("TMPDIR", folder, 1);
    (void)signal(SIGPIPE, SIG_IGN);
}

static void fini(void)
{
    function_kill(&process);
    function_kill(&second);
    (void)unlink(lock_path);
    (void)rmdir(folder);
    arena_release(&arena);
}

TestSuite(function, .init = init, .fini = fini, .timeout = 60);

static int get(const char *path)
{
    return http_get(process.port, path, answer);
}

static int post(const char *path, const char *headers, const char *body)
{
    char request[8192];
    (void)snprintf(request, sizeof(request),
                   "POST %s HTTP/1.1\r\nHost: f\r\nConnection: close\r\n%sContent-Length: %zu\r\n\r\n%s",
                   path, headers, strlen(body), body);
    return http_talk(process.port, request, answer) ? http_status(answer) : 0;
}

static int post_later(const char *path)
{
    char request[512];
    int fd = -1;
    (void)snprintf(request, sizeof(request),
                   "POST %s HTTP/1.1\r\nHost: f\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", path);
    cr_assert(http_send(process.port, request, &fd));
    return fd;
}

static int stop(void)
{
    cr_assert_eq(kill(process.pid, SIGTERM), 0);
    return function_wait(&process);
}

static void wait_inflight(int n)
{
    char line[64];
    (void)snprintf(line, sizeof(line), "\nhttp_requests_in_flight %d\n", n);
    for (int i = 0; i < 2000; i++) {
        (void)http_get(process.metrics_port, "/metrics", answer);
        if (strstr(answer, line) != NULL) return;
        (void)usleep(2000);
    }
    cr_assert(false, "never %d in flight: %s", n, answer);
}

static void assert_has(const char *text)
{
    cr_assert(strstr(answer, text) != NULL, "no '%s' in: %s", text, answer);
}

static void assert_has_not(const char *text)
{
    cr_assert(strstr(answer, text) == NULL, "'%s' in: %s", text, answer);
}

/* ---- requests ---- */

Test(function, answers_any_path_and_method_with_the_contract_s_headers)
{
    START(&plain);
    cr_assert_eq(post("/any/path?x=1", "Content-Type: text/x-test\r\n", "hello"), 200);
    cr_assert_str_eq(http_body(answer), "hello");
    assert_has("content-type: text/x-test\r\n");
    assert_has("x-duration-seconds: 0.0");
    assert_has("x-call-id: ");
    assert_has_not("x-openfaas-internal");
    cr_assert_eq(get("/"), 200);
    assert_has("content-type: application/octet-stream\r\n");
    cr_assert_eq(post("/call-id", "X-Call-Id: mine\r\n", ""), 201);
    cr_assert_str_eq(http_body(answer), "mine");
    assert_has_not("x-call-id"); /* the caller knows it */
    cr_assert_eq(stop(), 0);
}

Test(function, its_document_is_read_at_openapi_json_and_nothing_else_of_it_changes)
{
    static const struct function_def documented = {.name = "documented",
                                                   .summary = "answers",
                                                   .handle = plain_handle,
                                                   .manifest_json = "{}",
                                                   .openapi_json = "{\"openapi\":\"3.1.0\"}"};
    START(&documented);
    cr_assert_eq(get("/openapi.json"), 200);
    assert_has("content-type: application/json\r\n");
    cr_assert_str_eq(http_body(answer), "{\"openapi\":\"3.1.0\"}");
    assert_has_not("x-duration-seconds"); /* the handler was not asked */
    cr_assert_eq(post("/openapi.json", "", "mine"), 200);
    cr_assert_str_eq(http_body(answer), "mine");
    cr_assert_eq(get("/below/openapi.json"), 200);
    assert_has("x-duration-seconds");
    cr_assert_eq(stop(), 0);
}

Test(function, callers_of_one_that_asks_for_a_key_show_it_and_the_handler_does_not_see_it)
{
    static const struct function_def guarded = {.name = "guarded",
                                                .summary = "for tests",
                                                .handle = show_headers,
                                                .manifest_json = "{}",
                                                .api_key_secret = "guarded-api-key"};
    const char *key = arena_printf(&arena, "%s/guarded-api-key", folder).ptr,
               *gateway_key = arena_printf(&arena, "%s/balm-gateway-key", folder).ptr;
    START(&guarded, arena_printf(&arena, "secret_mount_path=%s", folder).ptr);
    cr_assert_eq(post("/", "", "x"), 401);
    cr_assert(strstr(answer, "www-authenticate: ApiKey realm=\"guarded\"") != NULL, "%s", answer);
    cr_assert_eq(post("/", KEY_HEADER("1"), "x"), 503, "there are no keys yet");
    cr_assert_eq(file_write_atomic(key, SV(KEY "1\n" KEY "2\n"), 0600, NULL), STATUS_OK);
    cr_assert_eq(post("/", KEY_HEADER("1"), "x"), 200);
    cr_assert_null(strstr(answer, KEY), "%s", answer);
    cr_assert_eq(post("/", KEY_HEADER("2"), "x"), 200);
    cr_assert_eq(post("/", KEY_HEADER("3"), "x"), 401);
    cr_assert_eq(post("/", KEY_HEADER(""), "x"), 401);
    cr_assert_eq(get("/_/health"), 200);
    /* Behind a gateway of balm's, its key alone counts. */
    cr_assert_eq(file_write_atomic(gateway_key, SV(KEY "g"), 0600, NULL), STATUS_OK);
    cr_assert_eq(post("/", KEY_HEADER("1"), "x"), 401);
    cr_assert_eq(post("/", KEY_HEADER("g"), "x"), 200);
    (void)unlink(key);
    (void)unlink(gateway_key);
}

Test(function, a_handler_s_error_is_a_sentence_with_its_status)
{
    START(&plain);
    cr_assert_eq(get("/fail"), 503);
    cr_assert_str_eq(http_body(answer), "{\"error\":\"backend is away\"}\n");
    assert_has("retry-after: 1\r\n");
    assert_has_not("x-openfaas-internal");
    cr_assert_eq(get("/silent-fail"), 500);
    assert_has("gave no reason");
    cr_assert(function_log_has(&process, "\"message\":\"invocation failed\""));
    cr_assert_eq(stop(), 0);
}

Test(function, exec_timeout_ends_a_request_with_an_empty_504_of_the_runtime)
{
    START(&plain, "exec_timeout=200ms");
    cr_assert_eq(get("/?ms=30000"), 504);
    cr_assert_str_eq(http_body(answer), "");
    assert_has("x-openfaas-internal: of-watchdog\r\n");
    assert_has("x-duration-seconds: 0.2");
    cr_assert_eq(get("/?ms=10"), 200);
    cr_assert_eq(stop(), 0);
}

Test(function, x_timeout_lowers_the_limit_and_is_ignored_where_it_makes_no_sense)
{
    START(&plain, "exec_timeout=1s");
    cr_assert_eq(post("/?ms=500", "X-Timeout: 100ms\r\n", ""), 504);
    assert_has("x-duration-seconds: 0.1");
    cr_assert_eq(post("/?ms=300", "X-Timeout: soon\r\n", ""), 200);
    cr_assert_eq(post("/?ms=300", "X-Timeout: 0\r\n", ""), 200);
    cr_assert_eq(post("/?ms=30000", "X-Timeout: 1h\r\n", ""), 504); /* does not raise it */
    assert_has("x-duration-seconds: 1.0");
    cr_assert_eq(stop(), 0);
}

Test(function, max_inflight_answers_429_at_once_and_says_not_ready)
{
    START(&plain, "max_inflight=1");
    cr_assert_eq(get("/_/ready"), 200);
    int fd = post_later("/?ms=400");
    wait_inflight(1);
    cr_assert_eq(get("/"), 429);
    cr_assert_str_eq(http_body(answer), "Concurrent request limit exceeded. Max concurrent requests: 1\n");
    assert_has("content-type: text/plain\r\n");
    assert_has("x-openfaas-internal: faas-middleware\r\n");
    assert_has("retry-after: 1\r\n");
    cr_assert_eq(get("/_/ready"), 429);
    cr_assert_eq(get("/_/health"), 200);
    cr_assert(http_receive(fd, answer));
    cr_assert_eq(http_status(answer), 200);
    cr_assert_eq(get("/"), 200);
    (void)http_get(process.metrics_port, "/metrics", answer);
    assert_has("http_requests_total{code=\"429\",method=\"get\"} 1\n");
    cr_assert_eq(stop(), 0);
}

/* ---- health, readiness, metrics ---- */

Test(function, private_routes_take_get_only_and_match_exactly)
{
    START(&plain);
    cr_assert_eq(get("/_/health"), 200);
    cr_assert_str_eq(http_body(answer), "OK");
    cr_assert_eq(get("/_/ready"), 200);
    cr_assert_str_eq(http_body(answer), "");
    cr_assert_eq(get("/health/liveness"), 200);
    cr_assert_eq(get("/health/readiness"), 200);
    cr_assert_eq(post("/_/health", "", ""), 405);
    cr_assert_eq(post("/_/ready", "", ""), 405);
    cr_assert_eq(post("/health/liveness", "", "mine"), 200);
    cr_assert_str_eq(http_body(answer), "mine"); /* only GET is taken from the function */
    cr_assert_eq(get("/_/health/"), 200);
    assert_has("x-call-id");
    cr_assert_eq(stop(), 0);
}

Test(function, knative_s_health_paths_can_be_left_to_the_function)
{
    START(&plain, "knative_health=false");
    cr_assert_eq(get("/health/liveness"), 200);
    assert_has("x-call-id");
    cr_assert_eq(stop(), 0);
}

Test(function, a_removed_lock_file_makes_it_unhealthy)
{
    START(&plain);
    struct stat st;
    cr_assert_eq(stat(lock_path, &st), 0);
    cr_assert_eq(st.st_size, 0);
    cr_assert_eq(unlink(lock_path), 0);
    cr_assert_eq(get("/_/health"), 503);
    cr_assert_str_eq(http_body(answer), "");
    cr_assert_eq(get("/_/ready"), 503);
    cr_assert_eq(get("/"), 200);
    cr_assert_eq(stop(), 0);
}

Test(function, suppress_lock_makes_no_file_and_is_healthy)
{
    START(&plain, "suppress_lock=true");
    cr_assert_neq(access(lock_path, F_OK), 0);
    cr_assert_eq(get("/_/health"), 200);
    cr_assert_eq(stop(), 0);
}

/* An image with a read-only root has no lock file, and no shell that could ask. */
Test(function, without_a_lock_file_the_health_check_asks_the_function_itself)
{
    char port[16];
    START(&plain, "suppress_lock=true", "healthcheck_interval=20s");
    (void)snprintf(port, sizeof(port), "port=%u", process.port);
    function_spawn(&second, &plain, ENV(port, "suppress_lock=true"), "-run-healthcheck");
    cr_assert_eq(function_wait(&second), 0);
    function_spawn(&second, &plain, ENV(port, "suppress_lock=true", "BALM_HOST=0.0.0.0"), "-run-healthcheck");
    cr_assert_eq(function_wait(&second), 0);
    kill(process.pid, SIGTERM);
    cr_assert(function_log_has(&process, "draining"));
    function_spawn(&second, &plain, ENV(port, "suppress_lock=true"), "-run-healthcheck");
    cr_assert_eq(function_wait(&second), 1); /* it still answers, but 503 */
    cr_assert_eq(function_wait(&process), 0);
    function_spawn(&second, &plain, ENV(port, "suppress_lock=true"), "-run-healthcheck");
    cr_assert_eq(function_wait(&second), 1);
}

Test(function, two_functions_on_one_machine_do_not_share_a_lock_file)
{
    START(&plain);
    function_start(&second, &plain, ENV("port=0", "metrics_port=0"));
    cr_assert(strstr(second.log, "belongs to another running function") != NULL);
    cr_assert_eq(kill(second.pid, SIGTERM), 0);
    cr_assert_eq(function_wait(&second), 0);
    cr_assert_eq(get("/_/health"), 200);
    cr_assert_eq(stop(), 0);
    cr_assert_neq(access(lock_path, F_OK), 0);
}

Test(function, ready_path_lets_the_function_answer_readiness_but_not_health)
{
    START(&plain, "ready_path=/ready-no?x=1");
    cr_assert_eq(get("/_/ready"), 503);
    cr_assert_str_eq(http_body(answer), "warming up");
    cr_assert_eq(get("/_/health"), 200);
    (void)http_get(process.metrics_port, "/metrics", answer);
    assert_has_not("http_requests_total{");
    cr_assert_eq(stop(), 0);
}

Test(function, metrics_have_of_watchdog_s_names_and_bounded_labels)
{
    START(&plain);
    (void)http_get(process.metrics_port, "/metrics", answer);
    assert_has("\nhttp_requests_in_flight 0\n");
    (void)get("/");
    (void)get("/_/health");
    cr_assert(http_talk(process.port, "BREW / HTTP/1.1\r\nHost: f\r\nConnection: close\r\n\r\n", answer));
    cr_assert_eq(http_get(process.metrics_port, "/metrics", answer), 200);
    assert_has("content-type: text/plain; version=0.0.4");
    assert_has("http_requests_total{code=\"200\",method=\"get\"} 1\n");
    assert_has("http_requests_total{code=\"200\",method=\"unknown\"} 1\n");
    assert_has("http_request_duration_seconds_bucket{code=\"200\",method=\"get\",le=\"0.005\"} 1\n");
    assert_has("http_request_duration_seconds_count{code=\"200\",method=\"get\"} 1\n");
    cr_assert_eq(http_get(process.metrics_port, "/", answer), 404);
    cr_assert_eq(stop(), 0);
}

Test(function, a_busy_metrics_port_is_a_warning_and_off_opens_none)
{
    char taken[32];
    START(&plain);
    (void)snprintf(taken, sizeof(taken), "metrics_port=%u", process.metrics_port);
    function_start(&second, &plain, ENV("port=0", taken, "suppress_lock=1"));
    cr_assert(strstr(second.log, "\"no metrics port\"") != NULL);
    cr_assert_eq(second.metrics_port, 0);
    cr_assert_eq(http_get(second.port, "/_/health", answer), 200);
    function_kill(&second);
    function_start(&second, &plain, ENV("port=0", "BALM_METRICS=off", "suppress_lock=1"));
    cr_assert(strstr(second.log, "\"no metrics port\"") == NULL);
    cr_assert_eq(second.metrics_port, 0);
    cr_assert_eq(stop(), 0);
}

Test(function, log_callid_logs_a_line_for_each_request_but_probes)
{
    START(&plain, "log_callid=true");
    (void)post("/a?b", "X-Call-Id: 77\r\n", "");
    (void)post("/c", "", "");
    (void)post("/d", "User-Agent: kube-probe/1.2\r\n", "");
    cr_assert_eq(stop(), 0);
    cr_assert(strstr(process.log, "\"uri\":\"/a?b\",\"status\":200") != NULL, "%s", process.log);
    cr_assert(strstr(process.log, "\"call_id\":\"77\"") != NULL);
    cr_assert(strstr(process.log, "\"call_id\":\"none\"") != NULL);
    cr_assert(strstr(process.log, "/d") == NULL);
}

/* ---- acting functions ---- */

static char key[65], secrets_env[300];

static void write_key(void)
{
    char path[300];
    invocation_derive_key(SV("master"), SV("actor"), key);
    (void)snprintf(path, sizeof(path), "%s/" INVOCATION_KEY_SECRET, folder);
    (void)snprintf(secrets_env, sizeof(secrets_env), "secret_mount_path=%s", folder);
    cr_assert_eq(file_write_atomic(path, sv(key), 0600, NULL), STATUS_OK);
}

static void remove_key(void)
{
    char path[300];
    (void)snprintf(path, sizeof(path), "%s/" INVOCATION_KEY_SECRET, folder);
    (void)unlink(path);
}

static void actor_fini(void)
{
    remove_key();
    fini();
}

TestSuite(acting_function, .init = init, .fini = actor_fini, .timeout = 60);

static const char *signed_headers(const char *body, int64_t life_ns)
{
    struct invocation inv = {.function = SV("actor"),
                             .intent = SV("i-1"),
                             .incident = SV("inc"),
                             .target = SV("host-a"),
                             .attempt = 1,
                             .epoch = 3,
                             .intent_unix_ns = clock_unix_ns(),
                             .deadline_unix_ns = clock_unix_ns() + life_ns};
    struct http_header h[INVOCATION_HEADERS_MAX];
    size_t n = 0;
    struct strview text = SV("");
    cr_assert_eq(invocation_sign(&inv, SV("local"), sv(key), sv(body), &arena, h, &n, NULL), STATUS_OK);
    for (size_t i = 0; i < n; i++)
        text =
            arena_printf(&arena, "%.*s%.*s: %.*s\r\n", SV_ARG(text), SV_ARG(h[i].name), SV_ARG(h[i].value));
    return text.ptr;
}

static int invoke(const char *body, int64_t life_ns)
{
    return post("/", signed_headers(body, life_ns), body);
}

#define LIFE_NS (30 * NS_PER_S)

Test(acting_function, a_signed_invocation_acts_and_says_so)
{
    write_key();
    START(&actor, secrets_env);
    cr_assert_eq(invoke("{\"what\":\"work\"}", LIFE_NS), 200, "%s", answer);
    struct invocation_reply r;
    cr_assert_eq(invocation_parse_reply(200, sv(http_body(answer)), &arena, &r, NULL), STATUS_OK);
    cr_assert(sv_eq(r.state, SV("done")) && sv_eq(r.message, SV("did work to host-a")));
    cr_assert(sv_eq(r.detail, SV("{\"intent\":\"i-1\"}")) && sv_eq(r.undo, SV("balm undo it")));
    cr_assert(r.entered_unix_ns > 0 && r.left_unix_ns >= r.entered_unix_ns &&
              r.left_unix_ns - r.entered_unix_ns < NS_PER_S);
    cr_assert_eq(invoke("{\"what\":\"refuse\"}", LIFE_NS), 200);
    assert_has("\"state\":\"refused\"");
    cr_assert_eq(stop(), 0);
}

Test(acting_function, nothing_unsigned_reaches_the_handler)
{
    write_key();
    START(&actor, secrets_env);
    cr_assert_eq(post("/", "", "{\"what\":\"work\"}"), 403);
    cr_assert(strncmp(http_body(answer), "{\"error\":\"", 10) == 0, "%s", answer);
    cr_assert_eq(get("/"), 405);
    assert_has("allow: POST\r\n");
    cr_assert_eq(post("/", signed_headers("{\"what\":\"work\"}", LIFE_NS), "{\"what\":\"else\"}"), 403);
    cr_assert_eq(invoke("{\"what\":\"work\"}", -1), 504);
    assert_has("\"code\":\"DEADLINE_EXCEEDED\"");
    assert_has_not("\"entered\"");
    cr_assert_eq(stop(), 0);
}

Test(acting_function, without_a_key_everything_is_refused_until_it_is_mounted)
{
    write_key();
    remove_key();
    START(&actor, secrets_env);
    cr_assert_eq(invoke("{\"what\":\"work\"}", LIFE_NS), 403);
    assert_has("balm-invocation-key");
    write_key();
    cr_assert_eq(invoke("{\"what\":\"work\"}", LIFE_NS), 200);
    cr_assert_eq(stop(), 0);
}

Test(acting_function, bad_parameters_are_400_with_the_decoder_s_sentence)
{
    write_key();
    START(&actor, secrets_env);
    cr_assert_eq(invoke("{}", LIFE_NS), 400);
    assert_has("\"message\":\"what: is required\"");
    assert_has("\"state\":\"failed\"");
    cr_assert_eq(invoke("{\"what\"", LIFE_NS), 400);
    cr_assert_eq(invoke("{\"what\":\"forget\"}", LIFE_NS), 500);
    assert_has("without saying what came of it");
    cr_assert_eq(stop(), 0);
}

Test(acting_function, the_signed_deadline_ends_it_before_exec_timeout)
{
    write_key();
    START(&actor, secrets_env, "exec_timeout=20s");
    cr_assert_eq(invoke("{\"what\":\"sleep\"}", 300 * NS_PER_MS), 504);
    assert_has("\"code\":\"DEADLINE_EXCEEDED\"");
    assert_has("x-openfaas-internal: of-watchdog\r\n");
    assert_has("\"entered\"");
    cr_assert_eq(stop(), 0);
}

Test(acting_function, a_frozen_function_acts_no_more_until_it_is_thawed)
{
    write_key();
    START(&actor, secrets_env);
    const char *body = "{\"what\":\"forever\"}";
    char request[8192];
    int fd = -1;
    (void)snprintf(request, sizeof(request),
                   "POST / HTTP/1.1\r\nHost: f\r\nConnection: close\r\n%sContent-Length: %zu\r\n\r\n%s",
                   signed_headers(body, LIFE_NS), strlen(body), body);
    cr_assert(http_send(process.port, request, &fd));
    wait_inflight(1);
    cr_assert_eq(kill(process.pid, SIGUSR1), 0);
    cr_assert(http_receive(fd, answer));
    cr_assert_eq(http_status(answer), 503);
    assert_has("\"code\":\"CANCELLED\"");
    assert_has("\"entered\"");
    cr_assert_eq(invoke("{\"what\":\"work\"}", LIFE_NS), 503);
    assert_has("\"code\":\"CANCELLED\"");
    assert_has_not("\"entered\"");
    cr_assert_eq(get("/_/health"), 200);
    assert_has("x-balm-frozen: 0\r\n");
    cr_assert_eq(kill(process.pid, SIGUSR2), 0);
    cr_assert(function_log_has(&process, "acting allowed"));
    cr_assert_eq(invoke("{\"what\":\"work\"}", LIFE_NS), 200);
    cr_assert_eq(get("/_/health"), 200);
    assert_has_not("x-balm-frozen");
    cr_assert_eq(stop(), 0);
}

Test(acting_function, it_can_be_started_frozen)
{
    write_key();
    START(&actor, secrets_env, "BALM_FROZEN=1");
    cr_assert_eq(invoke("{\"what\":\"work\"}", LIFE_NS), 503);
    cr_assert_eq(stop(), 0);
}

Test(acting_function, a_host_act_without_broker_is_a_failed_precondition)
{
    write_key();
    START(&actor, secrets_env);
    cr_assert_eq(invoke("{\"what\":\"host\"}", LIFE_NS), 412);
    assert_has("there is no broker");
    cr_assert_eq(stop(), 0);
}

/* ---- start ---- */

static void refused_start(const struct function_def *def, const char *setting, const char *words)
{
    function_spawn(&process, def, ENV("port=0", "metrics_port=0", setting), NULL);
    cr_assert_eq(function_wait(&process), 1, "%s", setting);
    cr_assert(strstr(process.log, "start refused") != NULL && strstr(process.log, words) != NULL,
              "'%s' not in: %s", words, process.log);
}

Test(function, bad_settings_stop_the_start_with_one_sentence)
{
    refused_start(&plain, "PORT=http", "PORT: 'http' is no port, allowed are 0 to 65535");
    refused_start(&plain, "PORT=65536", "PORT: '65536' is no port");
    refused_start(&plain, "port=-1", "port: '-1' is no port");
    refused_start(&plain, "exec_timeout=soon", "exec_timeout: 'soon'");
    refused_start(&plain, "write_timeout=0", "write_timeout");
    refused_start(&plain, "healthcheck_interval=x", "healthcheck_interval: 'x'");
    refused_start(&plain, "max_inflight=many", "max_inflight");
    refused_start(&plain, "log_level=LOUD", "log_level: 'LOUD'");
    refused_start(&plain, "jwt_auth=true", "jwt_auth");
    refused_start(&plain, "ready_path=x", "ready_path: 'x'");
    refused_start(&actor, "ready_path=/x", "acts");
    refused_start(&plain, "BALM_LISTEN_FD=77", "descriptor 77");
    refused_start(&plain, "BALM_LISTEN_FD=1", "BALM_LISTEN_FD: descriptor 1");
    refused_start(&plain, "BALM_METRICS=maybe", "BALM_METRICS");
    refused_start(&plain, "TMPDIR=/proc/1/nowhere", "suppress_lock");
    refused_start(&plain, "event_source=/a b", "event_source: '/a b' is no URI reference");
    function_spawn(&process, &plain, ENV("LISTEN_ADDRESS=example.org:80", "metrics_port=0"), NULL);
    cr_assert_eq(function_wait(&process), 1);
    cr_assert(strstr(process.log, "LISTEN_ADDRESS: 'example.org:80' has no address before the port") != NULL,
              "%s", process.log);
    function_spawn(&process, &plain, ENV("LISTEN_ADDRESS=127.0.0.1", "metrics_port=0"), NULL);
    cr_assert_eq(function_wait(&process), 1);
}

Test(function, a_busy_port_stops_the_start)
{
    char taken[32];
    START(&plain);
    (void)snprintf(taken, sizeof(taken), "port=%u", process.port);
    function_spawn(&second, &plain, ENV(taken, "metrics_port=0", "suppress_lock=1"), NULL);
    cr_assert_eq(function_wait(&second), 1);
    cr_assert(strstr(second.log, "start plain: ") != NULL, "%s", second.log);
    cr_assert_eq(get("/_/health"), 200);
}

static uint16_t free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    (void)close(fd);
    return ntohs(a.sin_port);
}

Test(function, port_is_taken_from_option_openfaas_or_knative_in_the_right_order)
{
    char openfaas[32], knative[32];
    uint16_t a = free_port(), b = free_port();
    (void)snprintf(openfaas, sizeof(openfaas), "port=%u", a);
    (void)snprintf(knative, sizeof(knative), "PORT=%u", b);
    function_start(&process, &plain, ENV(openfaas, knative, "metrics_port=0"));
    cr_assert_eq(process.port, a);
    function_kill(&process);
    function_start(&process, &plain, ENV(openfaas, knative, "K_SERVICE=s", "metrics_port=0"));
    cr_assert_eq(process.port, b);
    function_kill(&process);
    function_start(&process, &plain, ENV(knative, "metrics_port=0"));
    cr_assert_eq(process.port, b);
    function_kill(&process);
    function_spawn(&process, &plain, ENV(openfaas, "metrics_port=0"), "--port=0");
    cr_assert(function_log_has(&process, "\"ready\""));
    cr_assert(strstr(process.log, openfaas + 5) == NULL);
}

Test(function, listen_address_counts_where_no_port_is_set)
{
    char address[64], openfaas[32];
    uint16_t a = free_port(), b = free_port();
    (void)snprintf(address, sizeof(address), "LISTEN_ADDRESS=127.0.0.1:%u", a);
    (void)snprintf(openfaas, sizeof(openfaas), "port=%u", b);
    function_start(&process, &plain, ENV(address, "metrics_port=0"));
    cr_assert_eq(process.port, a);
    cr_assert_eq(get("/_/health"), 200);
    function_kill(&process);
    function_start(&process, &plain, ENV(address, openfaas, "metrics_port=0", "suppress_lock=1"));
    cr_assert_eq(process.port, b);
    function_kill(&process);
    (void)snprintf(address, sizeof(address), "LISTEN_ADDRESS=:%u", a);
    function_start(&process, &plain, ENV(address, "metrics_port=0", "suppress_lock=1"));
    cr_assert_eq(process.port, a);
}

Test(function, a_plain_function_may_say_what_came_of_it)
{
    START(&plain);
    cr_assert_eq(get("/state"), 200);
    assert_has("content-type: application/json\r\n");
    assert_has("\"state\":\"unchanged\"");
    assert_has("\"message\":\"has 5 bytes\"");
    assert_has("\"detail\":{\"bytes\":5}");
    cr_assert_eq(stop(), 0);
}

Test(function, options_that_only_print_do_so)
{
    function_spawn(&process, &plain, ENV("port=0"), "--nonsense");
    cr_assert_eq(function_wait(&process), 1);
    cr_assert(strstr(process.log, "unknown option --nonsense") != NULL);
    function_spawn(&process, &plain, ENV("port=0"), "-run-healthcheck");
    cr_assert_eq(function_wait(&process), 1); /* nothing runs here */
    START(&plain);
    function_spawn(&second, &plain, ENV("port=0"), "-run-healthcheck");
    cr_assert_eq(function_wait(&second), 0);
    function_spawn(&second, &plain, ENV("port=x"), "--run-healthcheck");
    cr_assert_eq(function_wait(&second), 1); /* an invalid configuration is unhealthy */
    function_spawn(&second, &plain, ENV("port=x"), "-version");
    cr_assert_eq(function_wait(&second), 0);
    function_spawn(&second, &plain, ENV("port=x"), "--describe");
    cr_assert_eq(function_wait(&second), 0);
    cr_assert_eq(stop(), 0);
}

Test(function, an_inherited_socket_is_served_without_port_and_lock_file)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    char inherited[32];
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    cr_assert_eq(listen(fd, 16), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    (void)snprintf(inherited, sizeof(inherited), "BALM_LISTEN_FD=%d", fd);
    function_start(&process, &plain, ENV(inherited, "BALM_METRICS=off", "port=1"));
    (void)close(fd);
    process.port = ntohs(a.sin_port);
    cr_assert_eq(get("/_/health"), 200);
    cr_assert_eq(get("/"), 200);
    cr_assert_neq(access(lock_path, F_OK), 0);
    int64_t started_ns = clock_monotonic_ns();
    cr_assert_eq(stop(), 0); /* unrouted by the gateway before: no quiet time */
    cr_assert_lt(clock_monotonic_ns() - started_ns, NS_PER_S);
}

/* ---- drain ---- */

Test(function, sigterm_says_unhealthy_serves_on_and_ends_what_runs)
{
    START(&plain, "healthcheck_interval=20s");
    int fd = post_later("/?ms=1500");
    wait_inflight(1);
    cr_assert_eq(kill(process.pid, SIGTERM), 0);
    cr_assert(function_log_has(&process, "\"draining\""));
    cr_assert_neq(access(lock_path, F_OK), 0);
    cr_assert_eq(get("/_/health"), 503);
    cr_assert_eq(get("/_/ready"), 503);
    cr_assert_eq(get("/health/readiness"), 503);
    cr_assert(http_talk(process.port, "POST / HTTP/1.1\r\nHost: f\r\nContent-Length: 4\r\n\r\nhere", answer));
    cr_assert_eq(http_status(answer),
                 200); /* and the runtime closes the connection, or http_talk() would wait */
    assert_has("Connection: close\r\n");
    cr_assert(http_receive(fd, answer));
    cr_assert_eq(http_status(answer), 200);
    int64_t idle_ns = clock_monotonic_ns();
    cr_assert_eq(function_wait(&process), 0);
    cr_assert_lt(clock_monotonic_ns() - idle_ns, 4 * NS_PER_S); /* cut short: idle, and a probe has seen it */
}

Test(function, without_probes_a_quiet_while_ends_the_drain)
{
    START(&plain, "healthcheck_interval=20s");
    int64_t started_ns = clock_monotonic_ns();
    cr_assert_eq(stop(), 0);
    int64_t took_ns = clock_monotonic_ns() - started_ns;
    cr_assert(took_ns > 2 * NS_PER_S && took_ns < 6 * NS_PER_S, "%lld ms", (long long)(took_ns / NS_PER_MS));
}

Test(function, healthcheck_interval_bounds_the_drain_and_write_timeout_what_still_runs)
{
    START(&plain, "healthcheck_interval=100ms", "write_timeout=300ms", "exec_timeout=1m");
    int fd = post_later("/?ms=50000");
    wait_inflight(1);
    int64_t started_ns = clock_monotonic_ns();
    cr_assert_eq(stop(), 0);
    cr_assert_lt(clock_monotonic_ns() - started_ns, 3 * NS_PER_S);
    cr_assert(strstr(process.log, "write_timeout ended the drain") != NULL, "%s", process.log);
    (void)close(fd);
}

Test(function, as_a_knative_service_it_serves_on_for_as_long_as_requests_come)
{
    START(&plain, "K_SERVICE=s", "write_timeout=300ms");
    cr_assert_eq(kill(process.pid, SIGTERM), 0);
    cr_assert(function_log_has(&process, "\"draining\""));
    int64_t until_ns = clock_monotonic_ns() + 2 * NS_PER_S; /* far beyond write_timeout */
    while (clock_monotonic_ns() < until_ns) {
        cr_assert_eq(get("/"), 200);
        (void)usleep(50000);
    }
    cr_assert_eq(function_wait(&process), 0); /* quiet */
}

static unsigned descriptors_of(pid_t pid)
{
    char path[64];
    unsigned n = 0;
    (void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    DIR *fds = opendir(path);
    cr_assert_not_null(fds);
    while (readdir(fds) != NULL)
        n++;
    (void)closedir(fds);
    return n;
}

Test(function, a_client_that_takes_nothing_of_its_answer_is_cut_after_write_timeout)
{
    START(&plain, "write_timeout=300ms");
    cr_assert_eq(get("/"), 200);
    unsigned before = descriptors_of(process.pid);
    int fd = post_later("/big");
    for (int i = 0; i < 5000 && descriptors_of(process.pid) == before; i++)
        (void)usleep(1000);
    cr_assert_gt(descriptors_of(process.pid), before);
    for (int i = 0; i < 10000 && descriptors_of(process.pid) > before; i++)
        (void)usleep(1000);
    cr_assert_eq(descriptors_of(process.pid), before, "the connection is still there");
    (void)close(fd);
    cr_assert_eq(stop(), 0);
}

Test(function, a_second_sigterm_or_a_sigint_forces_exit)
{
    START(&plain, "exec_timeout=1m");
    int fd = post_later("/?ms=50000");
    wait_inflight(1);
    cr_assert_eq(kill(process.pid, SIGTERM), 0);
    cr_assert(function_log_has(&process, "\"draining\""));
    cr_assert_eq(kill(process.pid, SIGTERM), 0);
    cr_assert_eq(function_wait(&process), 128 + SIGTERM);
    (void)close(fd);
    START(&plain);
    cr_assert_eq(kill(process.pid, SIGINT), 0);
    cr_assert_eq(function_wait(&process), 128 + SIGINT);
    cr_assert_neq(access(lock_path, F_OK), 0);
}

Test(function, no_request_is_lost_when_sigterm_comes_under_load)
{
    enum { CLIENTS = 40 };
    int fds[CLIENTS];
    START(&plain, "healthcheck_interval=500ms");
    for (int i = 0; i < CLIENTS / 2; i++)
        fds[i] = post_later("/?ms=200");
    cr_assert_eq(kill(process.pid, SIGTERM), 0);
    for (int i = CLIENTS / 2; i < CLIENTS; i++) {
        fds[i] = post_later("/?ms=600"); /* outlives healthcheck_interval */
        (void)usleep(5000);
    }
    for (int i = 0; i < CLIENTS; i++) {
        cr_assert(http_receive(fds[i], answer), "client %d", i);
        cr_assert_eq(http_status(answer), 200, "client %d: %s", i, answer);
    }
    cr_assert_eq(function_wait(&process), 0);
}
