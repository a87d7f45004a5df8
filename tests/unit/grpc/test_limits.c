/* What a peer may make the server hold. */
#include "peer.h"

#define HELD_MESSAGE "\0\0\1\0\0" /* 64 KiB are told, and never come */

static void begun(struct peer *p)
{
    const struct reply *last = NULL;
    for (unsigned i = 0; i < 200; i++) {
        last = begin(p, ECHO, HELD_MESSAGE, 5);
        cr_assert_leq(p->session.held_bytes, GRPC_HELD_MAX_BYTES);
    }
    assert_status(last, STATUS_RESOURCE_EXHAUSTED);
    cr_assert_lt(p->session.n_calls, 140);
    cr_assert_gt(p->session.n_calls, 100);
    cr_assert_eq(p->server->held_bytes, p->session.held_bytes);
    for (struct list *node = p->replies.next; node != &p->replies; node = node->next) {
        struct reply *r = container_of(node, struct reply, node);
        if (!r->is_closed) nghttp2_submit_rst_stream(p->h2, 0, r->stream_id, NGHTTP2_CANCEL);
    }
    settle(p);
    cr_assert_eq(p->session.held_bytes, 0);
    struct strview body = framed(SV("x"));
    assert_status(ask(p, ECHO, body.ptr, body.len), STATUS_OK);
}
Test(grpc_limits, messages_that_are_only_begun_count_by_what_is_kept_for_them)
{
    with_peer(begun);
}

static void heads(struct peer *p)
{
    static char value[15 * 1024];
    const char *const headers[] = {"x-a", value, NULL};
    memset(value, 'v', sizeof(value) - 1);
    struct strview body = framed(SV("x"));
    for (unsigned i = 0; i < 100; i++) {
        (void)ask_with(p, WATCH, body.ptr, body.len, headers);
        cr_assert_eq(p->session.held_bytes, 0, "a stream that only waits holds nothing of its request");
        cr_assert_eq(p->watched->arena.chunks, NULL);
        cr_assert_eq(grpc_call_metadata(p->watched, SV("x-a")).len, 0);
    }
    cr_assert_eq(p->session.n_calls, 100);
}
Test(grpc_limits, streams_that_only_wait_keep_nothing_of_their_request)
{
    with_peer(heads);
}

static void untaken(struct peer *p)
{
    static char message[GRPC_MESSAGE_MAX_BYTES - 1024];
    for (unsigned i = 0; i < 20; i++) {
        struct strview body = framed(sv_n(message, sizeof(message)));
        const struct reply *r = ask(p, ECHO, body.ptr, body.len);
        cr_assert_eq(r->body_len, 0);
    }
    cr_assert_eq(p->session.n_calls, 20);
    cr_assert_eq(p->session.held_bytes, 0, "the answers wait, the requests are gone");
}
Test(grpc_limits, answers_that_nobody_takes_hold_no_requests)
{
    const struct grpc_cfg cfg = {0};
    with_peer_of(&cfg, NO_WINDOW, untaken);
}

/* ---- a talk ---- */

static struct strview small_messages(size_t n)
{
    static char bytes[64 * 1024];
    cr_assert_leq(n * 6, sizeof(bytes));
    for (size_t i = 0; i < n; i++)
        memcpy(bytes + 6 * i, "\0\0\0\0\1x", 6);
    return sv_n(bytes, n * 6);
}

static void many_at_once(struct peer *p)
{
    struct strview body = small_messages(1000);
    const struct reply *r = ask(p, TALK, body.ptr, body.len);
    assert_status(r, STATUS_OK);
    cr_assert_eq(n_messages(r), 1000);
}
Test(grpc_limits, a_thousand_small_messages_at_once_are_no_reason_to_refuse)
{
    with_peer(many_at_once);
}

static void slow_handler(struct peer *p)
{
    static char stream[300 * 1000];
    for (size_t i = 0; i + 1005 <= sizeof(stream); i += 1005)
        memcpy(stream + i, "\0\0\0\3\xe8", 5);
    size_t n = sizeof(stream) / 1005;
    const struct reply *r = ask(p, TAKE, stream, n * 1005);
    cr_assert_leq(p->session.held_bytes, 80 * 1024, "more than its window waits");
    cr_assert_eq(p->taken, 0);
    while (p->n_ended == 0) {
        fiber_event_set(&p->go);
        settle(p);
    }
    cr_assert_eq(p->taken, n);
    assert_status(r, STATUS_OK);
}
Test(grpc_limits, a_client_that_is_faster_than_the_handler_is_held_by_its_window)
{
    with_peer(slow_handler);
}

static void endless(struct peer *p)
{
    static char stream[6 * 1024 * 1024];
    for (size_t i = 0; i + 1005 <= sizeof(stream); i += 1005)
        memcpy(stream + i, "\0\0\0\3\xe8", 5);
    const struct reply *r = ask(p, TALK, stream, sizeof(stream) / 1005 * 1005);
    assert_status(r, STATUS_RESOURCE_EXHAUSTED);
    cr_assert_gt(n_messages(r), 3000);
    cr_assert_eq(p->session.held_bytes, 0);
}
Test(grpc_limits, a_talk_has_an_end)
{
    with_peer(endless);
}

static void questions(struct peer *p)
{
    static const char list[] = "\0\0\0\0\3\x3a\1*"; /* list_services */
    static char body[2000 * (sizeof(list) - 1)];
    for (size_t i = 0; i < 2000; i++)
        memcpy(body + i * (sizeof(list) - 1), list, sizeof(list) - 1);
    struct reply *r =
        begin(p, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", body, sizeof(body));
    cr_assert_eq(n_messages(r), 2000);
    struct grpc_call *call = container_of(p->session.calls.next, struct grpc_call, node);
    cr_assert_lt(call->arena.used_bytes, 256 * 1024, "%zu bytes after 2000 questions",
                 call->arena.used_bytes);
}
Test(grpc_limits, questions_about_services_leave_nothing_behind)
{
    with_peer(questions);
}

/* All of their requests end in one piece of bytes. */
static void end_requests(struct peer *p, const struct reply *const *replies, size_t n)
{
    struct strview body = framed(SV("x"));
    for (size_t i = 0; i < n; i++)
        put_frame(p, NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, replies[i]->stream_id, body);
    cr_assert_eq(session_receive(&p->session, p->by_hand.ptr, p->by_hand.len), STATUS_OK);
    buf_reset(&p->by_hand);
}

static void many_handlers(struct peer *p)
{
    const struct reply *r[200];
    for (size_t i = 0; i < ARRAY_LEN(r); i++)
        r[i] = begin(p, i % 2 == 0 ? WATCH : ECHO, "", 0);
    unsigned before = fiber_count();
    end_requests(p, r, ARRAY_LEN(r));
    cr_assert_eq(p->server->n_running, ARRAY_LEN(r));
    cr_assert_leq(fiber_count(), before + 1);
    settle(p);
    cr_assert_eq(p->server->n_running, 0);
    for (size_t i = 1; i < ARRAY_LEN(r); i += 2)
        assert_status(r[i], STATUS_OK);
}
Test(grpc_limits, handlers_that_do_not_wait_share_a_stack)
{
    with_peer(many_handlers);
}

static void some_wait(struct peer *p)
{
    const struct reply *r[] = {begin(p, WAIT, "", 0), begin(p, ECHO, "", 0), begin(p, WAIT, "", 0),
                               begin(p, WAIT, "", 0), begin(p, ECHO, "", 0)};
    end_requests(p, r, ARRAY_LEN(r));
    nghttp2_submit_rst_stream(p->h2, NGHTTP2_FLAG_NONE, r[3]->stream_id, NGHTTP2_CANCEL);
    settle(p);
    assert_status(r[1], STATUS_OK);
    assert_status(r[4], STATUS_OK);
    cr_assert_eq(r[0]->grpc_status, -1);
    fiber_event_set(&p->go);
    settle(p);
    assert_status(r[0], STATUS_OK);
    assert_status(r[2], STATUS_OK);
    cr_assert_eq(r[3]->grpc_status, -1);
    cr_assert_eq(p->server->n_running, 0);
}
Test(grpc_limits, handlers_behind_one_that_waits_run_all_the_same)
{
    with_peer(some_wait);
}

static void streams(struct peer *p)
{
    struct strview body = framed(SV("x"));
    for (unsigned i = 0; i < 8; i++)
        (void)ask(p, WATCH, body.ptr, body.len);
    cr_assert_eq(p->session.n_calls, 8);
    const struct reply *r = ask(p, WATCH, body.ptr, body.len); /* nghttp2's client waits for a place */
    cr_assert_not(r->is_closed);
    cr_assert_eq(p->session.n_calls, 8);
}
Test(grpc_limits, streams_of_a_connection_are_bounded)
{
    const struct grpc_cfg cfg = {.max_streams = 8};
    with_peer_of(&cfg, 0, streams);
}
