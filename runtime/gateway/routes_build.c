/* POST /build, as the builder of OpenFaaS answers it: JSON lines of what goes on, and one at the end that
 * says how it ended (contracts/openfaas.md §4.6). Whoever has signed gets 200, and what is wrong in that last
 * line: faas-cli shows no other answer's text. */
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "gateway/builder.h"
#include "gateway/routes.h"
#include "log/log.h"

#define LINE_BYTES_MAX (60 * 1024) /* the client's reader takes 64 KiB; as JSON a byte takes at most six */
#define WAIT_SAY_NS    (10 * NS_PER_S)

struct answer {
    struct http_resp *resp;
    struct build *build;
    bool is_streamed;
};

/* Without a stream only the last one is sent. */
static enum status say(struct answer *a, const struct strview *lines, size_t n, const char *state,
                       const char *error)
{
    struct buf text;
    bool is_last = strcmp(state, "in_progress") != 0;
    if (!a->is_streamed && !is_last) return STATUS_OK;
    buf_init(&text, LINE_BYTES_MAX);
    buf_append(&text, SV("{\"log\":["));
    for (size_t i = 0; i < n; i++) {
        if (i > 0) buf_append_char(&text, ',');
        buf_append_json_string(&text, lines[i]);
    }
    buf_append(&text, SV("],\"image\":"));
    buf_append_json_string(&text, a->build->image);
    buf_printf(&text, ",\"status\":\"%s\"", state);
    if (error != NULL) {
        buf_append(&text, SV(",\"error\":"));
        buf_append_json_string(&text, sv(error));
    }
    buf_append(&text, SV("}\n"));
    enum status s = STATUS_OK;
    if (a->is_streamed)
        s = http_resp_write(a->resp, buf_view(&text));
    else
        http_resp_set(a->resp, 200, SV("application/json"), arena_copy(a->build->arena, buf_view(&text)));
    buf_release(&text);
    return s;
}

static enum status on_log(void *arg, const struct strview *lines, size_t n)
{
    return say(arg, lines, n, "in_progress", NULL);
}

/* ---- who may ---- */

struct signature_work {
    const struct http_req *req;
    struct strview secret;
    bool is_fine;
};

static void check_signature(void *arg)
{
    struct signature_work *w = arg;
    uint8_t mac[SHA256_BYTES];
    char hex[SHA256_HEX + 1];
    struct strview said = http_req_header(w->req, SV("x-build-signature"));
    hmac_sha256(w->secret, w->req->body, mac);
    hex_encode(mac, sizeof(mac), hex);
    w->is_fine = sv_starts_with(said, SV("sha256=")) &&
                 sv_eq_constant_time(sv_sub(said, sizeof("sha256=") - 1, said.len), sv(hex));
}

static bool may_build(struct gateway *g, const struct http_req *req, struct http_resp *resp)
{
    if (g->builder == NULL) {
        route_answer_text(req, resp, 404, "nothing is built here: balm up has no --builder-secret");
        return false;
    }
    if (!sv_eq(req->method, SV("POST"))) {
        route_refuse_method(req, resp, "POST");
        return false;
    }
    struct signature_work w = {.req = req, .secret = g->builder->secret};
    work_run(check_signature, &w);
    if (w.is_fine) return true;
    gateway_count_refused_login(SV("wrong"));
    route_answer_text(req, resp, 401, "X-Build-Signature is not that of the payload secret");
    return false;
}

/* ---- one at a time ---- */

static enum status take_turn(struct answer *a, struct error *err)
{
    struct builder *b = a->build->builder;
    const struct strview waiting = SV("another build is under way: this one waits");
    int64_t deadline_ns = clock_monotonic_ns() + BUILD_TIMEOUT_NS;
    if (b->is_building && b->n_waiting >= BUILDS_WAITING_MAX)
        return error_set(err, STATUS_RESOURCE_EXHAUSTED, "%d builds wait already", BUILDS_WAITING_MAX);
    b->n_waiting++;
    enum status s = STATUS_OK;
    while (b->is_building && s == STATUS_OK) {
        s = say(a, &waiting, 1, "in_progress", NULL);
        fiber_event_reset(&b->ended);
        if (s == STATUS_OK) s = fiber_event_wait(&b->ended, clock_monotonic_ns() + WAIT_SAY_NS);
        if (s == STATUS_DEADLINE_EXCEEDED && clock_monotonic_ns() < deadline_ns) s = STATUS_OK;
    }
    b->n_waiting--;
    if (s != STATUS_OK) return error_set(err, s, "its turn did not come");
    b->is_building = true;
    return STATUS_OK;
}

struct step {
    struct build *build;
    struct error *err;
    enum status (*fn)(struct build *b, struct error *err);
    enum status status;
};

static void on_step(void *arg)
{
    struct step *step = arg;
    step->status = step->fn(step->build, step->err);
}

static enum status off_the_loop(struct build *b, enum status (*fn)(struct build *b, struct error *err),
                                struct error *err)
{
    struct step step = {.build = b, .err = err, .fn = fn};
    work_run(on_step, &step);
    return step.status;
}

static void on_remove(void *arg)
{
    build_remove(arg);
}

static enum status build_all(struct answer *a, struct error *err)
{
    struct build *b = a->build;
    enum status s = take_turn(a, err);
    if (s != STATUS_OK) return s;
    s = off_the_loop(b, build_unpack, err);
    if (s == STATUS_OK && b->made != NULL) s = build_make(b, on_log, a, err);
    if (s == STATUS_OK) s = off_the_loop(b, build_install, err);
    work_run(on_remove, b);
    b->builder->is_building = false;
    fiber_event_set(&b->builder->ended);
    return s;
}

void routes_build(struct gateway *g, const struct http_req *req, struct http_resp *resp)
{
    struct error err;
    if (!may_build(g, req, resp)) return;
    struct build b = {.builder = g->builder, .arena = req->arena, .archive = req->body};
    struct answer a = {.resp = resp, .build = &b};
    a.is_streamed = sv_eq_nocase(http_req_header(req, SV("accept")), SV("application/x-ndjson"));
    if (a.is_streamed) {
        http_resp_header(resp, SV("content-type"), SV("application/x-ndjson"));
        if (http_resp_stream(resp) != STATUS_OK) return;
    }
    int64_t began_ns = clock_monotonic_ns();
    enum status s = build_all(&a, &err);
    if (s == STATUS_OK) {
        log_info("gateway", "function built", LOG_SV("image", b.image),
                 LOG_INT("ms", (clock_monotonic_ns() - began_ns) / NS_PER_MS));
        (void)say(&a, NULL, 0, "success", NULL);
    } else {
        log_warn("gateway", "function not built", LOG_SV("image", b.image), LOG_STR("error", err.message));
        (void)say(&a, NULL, 0, "failed", err.message);
    }
}
