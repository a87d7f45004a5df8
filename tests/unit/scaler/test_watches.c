/* Who is told of work, when: on streams of a real server, with a session of no sockets. */
#include "functions/scaler/watches.h"

#include <criterion/criterion.h>
#include <string.h>

#include "grpc/grpc_impl.h"

#define ACTIVE "\0\0\0\0\2\x08\1" /* IsActiveResponse{result: true}, framed */

struct scene {
    struct loop *loop;
    struct grpc_server *server;
    struct grpc_session session;
    nghttp2_session *h2;
    struct watches watches;
    uint64_t backlog_a, backlog_b;
    unsigned asked;
    int64_t now_ns;
    struct strview function; /* of the stream that is being opened */
    char told[8][64];        /* by stream, what came */
    size_t n_told[8];
    unsigned n_streams, n_closed;
    enum status added;
};

static uint64_t backlog(void *arg, struct strview function)
{
    struct scene *s = arg;
    s->asked++;
    if (function.len == 0) return s->backlog_a + s->backlog_b;
    return sv_eq(function, SV("a")) ? s->backlog_a : s->backlog_b;
}

static enum status open_stream(void *arg, struct grpc_call *call, struct error *err)
{
    struct scene *s = arg;
    s->added = watches_add(&s->watches, s->function, call, err);
    return s->added;
}

static int on_data(nghttp2_session *h2, uint8_t flags, int32_t stream, const uint8_t *bytes, size_t n,
                   void *arg)
{
    (void)h2, (void)flags;
    struct scene *s = arg;
    size_t i = (size_t)stream / 2;
    cr_assert_lt(s->n_told[i] + n, sizeof(s->told[i]));
    memcpy(s->told[i] + s->n_told[i], bytes, n);
    s->n_told[i] += n;
    return 0;
}

static int on_closed(nghttp2_session *h2, int32_t stream, uint32_t code, void *arg)
{
    (void)h2, (void)stream, (void)code;
    struct scene *s = arg;
    s->n_closed++;
    return 0;
}

static void settle(struct scene *s)
{
    for (unsigned i = 0; i < 6; i++) {
        const uint8_t *bytes;
        struct buf out;
        for (ssize_t n; (n = nghttp2_session_mem_send(s->h2, &bytes)) > 0;)
            cr_assert_eq(session_receive(&s->session, bytes, (size_t)n), STATUS_OK);
        (void)!fiber_yield();
        buf_init(&out, 1 << 20);
        cr_assert_eq(session_take_output(&s->session, &out, 1 << 19), STATUS_OK);
        cr_assert_eq(nghttp2_session_mem_recv(s->h2, (const uint8_t *)out.ptr, out.len), (ssize_t)out.len);
        buf_release(&out);
    }
}

static ssize_t on_read(nghttp2_session *h2, int32_t stream, uint8_t *to, size_t len, uint32_t *flags,
                       nghttp2_data_source *source, void *arg)
{
    (void)h2, (void)stream, (void)source, (void)arg, (void)len;
    memset(to, 0, GRPC_PREFIX_BYTES);
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    return GRPC_PREFIX_BYTES;
}

static unsigned watch(struct scene *s, const char *function)
{
    static const char *const head[][2] = {{":method", "POST"},
                                          {":scheme", "http"},
                                          {":path", "/w.W/Watch"},
                                          {":authority", "h"},
                                          {"content-type", "application/grpc"}};
    nghttp2_nv nv[ARRAY_LEN(head)];
    for (size_t i = 0; i < ARRAY_LEN(head); i++)
        nv[i] = (nghttp2_nv){(uint8_t *)head[i][0], (uint8_t *)head[i][1], strlen(head[i][0]),
                             strlen(head[i][1]), 0};
    nghttp2_data_provider source = {.read_callback = on_read};
    s->function = sv(function);
    cr_assert_gt(nghttp2_submit_request(s->h2, NULL, nv, ARRAY_LEN(nv), &source, NULL), 0);
    settle(s);
    return s->n_streams++;
}

/* Time passes, and what is due is told. */
static void tell(struct scene *s)
{
    watches_tell_due(&s->watches, s->now_ns);
    settle(s);
}

static void look(struct scene *s, int64_t later_ns)
{
    s->now_ns += later_ns;
    watches_look(&s->watches, s->now_ns);
    settle(s);
}

static void assert_told(const struct scene *s, unsigned stream, size_t times)
{
    cr_assert_eq(s->n_told[stream], times * (sizeof(ACTIVE) - 1), "stream %u: %zu bytes", stream,
                 s->n_told[stream]);
    for (size_t i = 0; i < times; i++)
        cr_assert_eq(memcmp(s->told[stream] + i * (sizeof(ACTIVE) - 1), ACTIVE, sizeof(ACTIVE) - 1), 0);
}

/* ---- the scripts ---- */

static void rising(struct scene *s)
{
    unsigned a = watch(s, "a"), b = watch(s, "b"), all = watch(s, "");
    tell(s);
    look(s, NS_PER_S);
    assert_told(s, a, 0); /* never while nothing waits, and never "false" */
    s->backlog_a = 1;
    watches_notice(&s->watches, SV("a"));
    cr_assert(s->watches.risen.is_set);
    tell(s);
    assert_told(s, a, 1);
    assert_told(s, b, 0);
    assert_told(s, all, 1);
    for (unsigned i = 0; i < 100; i++) { /* more of it: no edge */
        s->backlog_a++;
        watches_notice(&s->watches, SV("a"));
    }
    tell(s);
    look(s, NS_PER_S);
    assert_told(s, a, 1);
    look(s, WATCH_REPEAT_NS);
    assert_told(s, a, 2); /* KEDA may have dropped the first */
    assert_told(s, b, 0);
    s->backlog_a = 0;
    look(s, WATCH_REPEAT_NS);
    look(s, WATCH_REPEAT_NS);
    assert_told(s, a, 2);
    assert_told(s, all, 2);
}

static void at_once(struct scene *s)
{
    s->backlog_a = 3;
    unsigned a = watch(s, "a"), b = watch(s, "b");
    tell(s);
    assert_told(s, a, 1);
    assert_told(s, b, 0);
}

/* Done and come again between two looks: an edge all the same. */
static void dip(struct scene *s)
{
    unsigned a = watch(s, "a"), all = watch(s, "");
    s->backlog_a = 1;
    watches_notice(&s->watches, SV("a"));
    tell(s);
    s->backlog_a = 0; /* its outcome is a record that says nothing here */
    s->backlog_a = 1;
    watches_notice(&s->watches, SV("a"));
    tell(s);
    assert_told(s, a, 2);
    assert_told(s, all, 2);
    s->backlog_b = 1;
    watches_notice(&s->watches, SV("b"));
    tell(s);
    assert_told(s, a, 2);
    assert_told(s, all, 2);
}

static void by_time(struct scene *s)
{
    unsigned a = watch(s, "a");
    tell(s);
    s->backlog_a = 1; /* a retry is due: no record */
    look(s, NS_PER_S);
    assert_told(s, a, 1);
}

static void gone(struct scene *s)
{
    (void)watch(s, "a");
    (void)watch(s, "a");
    cr_assert_eq(s->watches.n, 2);
    s->backlog_a = 1;
    watches_notice(&s->watches, SV("a")); /* due, and gone before it is told */
    nghttp2_submit_rst_stream(s->h2, NGHTTP2_FLAG_NONE, 1, NGHTTP2_CANCEL);
    settle(s);
    cr_assert_eq(s->watches.n, 1);
    tell(s);
    assert_told(s, 0, 0);
    assert_told(s, 1, 1);
    nghttp2_submit_rst_stream(s->h2, NGHTTP2_FLAG_NONE, 3, NGHTTP2_CANCEL);
    settle(s);
    cr_assert_eq(s->watches.n, 0);
    watches_notice(&s->watches, SV("a"));
    tell(s);
}

static void too_many(struct scene *s)
{
    (void)watch(s, "a");
    s->watches.n = WATCHES_MAX;
    (void)watch(s, "a");
    cr_assert_eq(s->added, STATUS_RESOURCE_EXHAUSTED);
    cr_assert_eq(s->n_closed, 1);
    s->watches.n = 1;
}

/* A thousand streams of one function, one question about it for each record. */
static void cheap(struct scene *s)
{
    for (unsigned i = 0; i < 8; i++)
        (void)watch(s, "a");
    s->backlog_a = 2;
    watches_notice(&s->watches, SV("a"));
    tell(s);
    s->asked = 0;
    for (unsigned i = 0; i < 100; i++)
        watches_notice(&s->watches, SV("a"));
    cr_assert_leq(s->asked, 100);
}

/* ---- the scene ---- */

struct run {
    struct scene scene;
    void (*script)(struct scene *s);
};

static void wants_output(void *arg)
{
    (void)arg;
}

static void client_new(struct scene *s)
{
    nghttp2_session_callbacks *cb;
    nghttp2_session_callbacks_new(&cb);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_closed);
    nghttp2_session_client_new(&s->h2, cb, s);
    nghttp2_session_callbacks_del(cb);
    nghttp2_submit_settings(s->h2, NGHTTP2_FLAG_NONE, NULL, 0);
}

static void run_script(void *arg)
{
    static const struct grpc_method methods[] = {{"/w.W/Watch", GRPC_SERVER_STREAM, open_stream}};
    struct run *r = arg;
    struct scene *s = &r->scene;
    const struct grpc_service service = {.name = "w.W", .methods = methods, .n_methods = 1, .arg = s};
    const struct grpc_service *const services[] = {&service};
    const struct grpc_cfg cfg = {.host = "127.0.0.1", .listen_fd = -1, .services = services, .n_services = 1};
    struct error err;
    cr_assert_eq(grpc_server_start(s->loop, &cfg, &s->server, &err), STATUS_OK, "%s", err.message);
    cr_assert_eq(session_init(&s->session, s->server, wants_output, s), STATUS_OK);
    client_new(s);
    watches_init(&s->watches, backlog, s);
    s->now_ns = clock_monotonic_ns();
    r->script(s);
    session_release(&s->session);
    cr_assert_eq(s->watches.n, 0);
    nghttp2_session_del(s->h2);
    grpc_server_free(s->server);
    watches_release(&s->watches);
}

static void run(void (*script)(struct scene *s))
{
    struct run r = {.script = script};
    struct error err;
    cr_assert_eq(loop_new(&r.scene.loop, &err), STATUS_OK, "%s", err.message);
    cr_assert_eq(loop_run_fiber(r.scene.loop, run_script, &r, &err), STATUS_OK, "%s", err.message);
    loop_free(r.scene.loop);
}

Test(watches, are_told_on_the_rising_edge_and_then_slowly)
{
    run(rising);
}
Test(watches, are_told_at_once_of_what_waits_already)
{
    run(at_once);
}
Test(watches, are_told_again_when_all_was_done_between_two_looks)
{
    run(dip);
}
Test(watches, are_told_of_what_became_due_by_time)
{
    run(by_time);
}
Test(watches, go_with_their_streams)
{
    run(gone);
}
Test(watches, are_bounded)
{
    run(too_many);
}
Test(watches, ask_once_a_record)
{
    run(cheap);
}
