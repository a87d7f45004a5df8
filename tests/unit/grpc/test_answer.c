/* What goes out: trailers, windows, ends before the request's. */
#include "peer.h"

static struct reply *ask_for(struct peer *p, const char *path, struct strview message)
{
    struct strview body = framed(message);
    return ask(p, path, body.ptr, body.len);
}

static void of_failure(struct peer *p)
{
    const struct reply *r = ask_for(p, FAIL, SV("100% \xc3\xa4\n"));
    assert_status(r, STATUS_NOT_FOUND);
    cr_assert_str_eq(r->grpc_message, "100%25 %C3%A4%0A");
    cr_assert_eq(r->n_heads, 1);
    assert_status(ask_for(p, MUTE, SV("")), STATUS_INTERNAL);
    char text[2000];
    memset(text, '\xff', sizeof(text));
    r = ask_for(p, FAIL, sv_n(text, sizeof(text)));
    assert_status(r, STATUS_NOT_FOUND);
    cr_assert_leq(strlen(r->grpc_message), 1024);
    cr_assert_gt(strlen(r->grpc_message), 0);
}
Test(grpc_answer, of_a_failure_has_status_and_text)
{
    with_peer(of_failure);
}

static void many(struct peer *p)
{
    char message[300];
    memset(message, 'm', sizeof(message));
    const struct reply *r = ask_for(p, COUNT, sv_n(message, sizeof(message))); /* 90 KB: more than a window */
    assert_status(r, STATUS_OK);
    cr_assert_eq(n_messages(r), sizeof(message));
    cr_assert_eq(r->n_heads, 2);
    r = ask_for(p, COUNT, SV(""));
    assert_status(r, STATUS_OK);
    cr_assert_eq(n_messages(r), 0);
}
Test(grpc_answer, may_be_many_messages)
{
    with_peer(many);
}

/* ---- windows ---- */

static void byte_by_byte(struct peer *p)
{
    const struct reply *r = ask_for(p, ECHO, SV("hello, one byte after the other"));
    assert_status(r, STATUS_OK);
    cr_assert_eq(n_messages(r), 1);
    cr_assert_geq(r->n_data, 36);
    cr_assert_eq(p->session.n_calls, 0);
}
Test(grpc_answer, keeps_to_a_window_of_one_byte)
{
    const struct grpc_cfg cfg = {0};
    with_peer_of(&cfg, 1, byte_by_byte);
}

static void open_window(struct peer *p, const struct reply *r, int32_t bytes)
{
    nghttp2_submit_window_update(p->h2, NGHTTP2_FLAG_NONE, r->stream_id, bytes);
    settle(p);
}

static void stalled(struct peer *p)
{
    static char message[50 * 1000];
    struct reply *r = begin(p, TALK, "", 0);
    for (unsigned i = 0; i < 3; i++) {
        struct strview body = framed(sv_n(message, sizeof(message)));
        for (size_t at = 0; at < body.len; at += 16384)
            put_frame(p, NGHTTP2_DATA, NGHTTP2_FLAG_NONE, r->stream_id,
                      sv_sub(body, at, at + 16384 < body.len ? at + 16384 : body.len));
        settle(p);
    }
    cr_assert_eq(r->body_len, 0);
    cr_assert_eq(p->n_ended, 0, "the handler waits for the client");
    cr_assert_eq(p->server->n_running, 1);
    open_window(p, r, 60000);
    cr_assert_eq(r->body_len, 60000);
    int64_t now_ns = loop_now_ns(p->loop);
    cr_assert(session_sweep(&p->session, now_ns + GRPC_WRITE_NS - NS_PER_S));
    settle(p);
    cr_assert_not(r->is_closed);
    cr_assert(session_sweep(&p->session, now_ns + GRPC_WRITE_NS + NS_PER_S));
    cr_assert(session_sweep(&p->session, now_ns + GRPC_WRITE_NS + 2 * NS_PER_S)); /* once is enough */
    settle(p);
    cr_assert(r->was_reset);
    cr_assert_eq(r->code, NGHTTP2_CANCEL);
    cr_assert_eq(p->n_ended, 1);
    cr_assert_eq(p->ended, STATUS_CANCELLED);
}
Test(grpc_answer, that_nobody_takes_ends_after_half_a_minute)
{
    const struct grpc_cfg cfg = {0};
    with_peer_of(&cfg, NO_WINDOW, stalled);
}

static void reset_while_waiting(struct peer *p)
{
    struct reply *r = ask_for(p, COUNT, sv_n((const char[3000]){0}, 3000));
    cr_assert_eq(p->n_ended, 0);
    nghttp2_submit_rst_stream(p->h2, NGHTTP2_FLAG_NONE, r->stream_id, NGHTTP2_CANCEL);
    settle(p);
    cr_assert_eq(p->n_ended, 1);
    cr_assert_eq(p->ended, STATUS_CANCELLED);
    cr_assert_eq(p->session.n_calls, 0);
    cr_assert_eq(p->session.held_bytes, 0);
}
Test(grpc_answer, ends_with_a_client_that_resets_it)
{
    const struct grpc_cfg cfg = {0};
    with_peer_of(&cfg, NO_WINDOW, reset_while_waiting);
}

/* ---- before the end of the request ---- */

static void early(struct peer *p)
{
    struct reply *r = begin(p, "/test.Service/Unknown", "", 0);
    assert_status(r, STATUS_UNIMPLEMENTED);
    cr_assert(r->was_reset && r->is_closed);
    cr_assert_eq(r->code, NGHTTP2_NO_ERROR);
    r = begin(p, ECHO, "\0\0\2\0\0", 5);
    assert_status(r, STATUS_RESOURCE_EXHAUSTED);
    cr_assert(r->was_reset);
    cr_assert_eq(r->code, NGHTTP2_NO_ERROR);
    r = begin(p, "/test.Service/Unknown", NULL, 0); /* half-closed by its head: nothing to reset */
    assert_status(r, STATUS_UNIMPLEMENTED);
    cr_assert(r->is_closed && !r->was_reset);
}
Test(grpc_answer, before_the_requests_end_tells_the_client_to_stop)
{
    with_peer(early);
}

static void half_closed(struct peer *p)
{
    struct strview body = framed(SV("hello"));
    struct reply *r = begin(p, TALK, body.ptr, body.len);
    cr_assert_eq(n_messages(r), 1); /* answered while both sides are open */
    cr_assert_not(r->is_closed);
    put_frame(p, NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, r->stream_id, body);
    settle(p);
    cr_assert_eq(n_messages(r), 2);
    assert_status(r, STATUS_OK);
    cr_assert_eq(p->ended, STATUS_NOT_FOUND);
}
Test(grpc_answer, goes_on_as_both_sides_talk)
{
    with_peer(half_closed);
}

static void cut_off_talk(struct peer *p)
{
    struct reply *r = begin(p, TALK, "\0\0\0\0\5he", 7);
    put_frame(p, NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, r->stream_id, SV("ll"));
    settle(p);
    assert_status(r, STATUS_INTERNAL);
    cr_assert_eq(p->ended, STATUS_CANCELLED);
}
Test(grpc_answer, of_a_talk_that_is_cut_off_is_a_failure)
{
    with_peer(cut_off_talk);
}

/* ---- deadlines ---- */

static void one_nanosecond(struct peer *p)
{
    struct strview body = framed(SV("x"));
    const struct reply *r =
        ask_with(p, WAIT, body.ptr, body.len, (const char *const[]){"grpc-timeout", "1n", NULL});
    assert_status(r, STATUS_DEADLINE_EXCEEDED);
    cr_assert_eq(p->ended, STATUS_DEADLINE_EXCEEDED);
    r = ask_with(p, WATCH, body.ptr, body.len, (const char *const[]){"grpc-timeout", "1n", NULL});
    cr_assert_not(r->is_closed);
    cr_assert(session_sweep(&p->session, loop_now_ns(p->loop) + 1));
    settle(p);
    cr_assert(r->was_reset);
    cr_assert_eq(r->code, NGHTTP2_CANCEL);
    cr_assert_eq(p->gone, 1);
}
Test(grpc_answer, is_none_behind_the_deadline)
{
    with_peer(one_nanosecond);
}

static void own_limit(struct peer *p)
{
    assert_status(ask_for(p, COUNT, SV("x")), STATUS_OK);
    struct strview body = framed(SV("x"));
    const struct reply *r =
        ask_with(p, SLEEP, body.ptr, body.len, (const char *const[]){"grpc-timeout", "5H", NULL});
    while (p->n_ended < 2) /* a hundredth of a second */
        (void)!sleep_ms(1);
    settle(p);
    assert_status(r, STATUS_DEADLINE_EXCEEDED);
}
Test(grpc_answer, of_a_hanging_handler_comes_at_the_servers_own_limit)
{
    const struct grpc_cfg cfg = {.call_timeout_ns = 10 * NS_PER_MS};
    with_peer_of(&cfg, 0, own_limit);
}

static void half_a_request(struct peer *p)
{
    struct reply *r = begin(p, ECHO, "\0\0\0\0\5he", 7);
    int64_t now_ns = loop_now_ns(p->loop);
    cr_assert(session_sweep(&p->session, now_ns + GRPC_CALL_TIMEOUT_NS - NS_PER_S));
    settle(p);
    cr_assert_not(r->is_closed);
    cr_assert(session_sweep(&p->session, now_ns + GRPC_CALL_TIMEOUT_NS + NS_PER_S));
    settle(p);
    assert_status(r, STATUS_DEADLINE_EXCEEDED);
    cr_assert(r->is_closed);
    cr_assert_eq(p->session.held_bytes, 0);
}
Test(grpc_answer, comes_to_a_request_that_never_ends)
{
    with_peer(half_a_request);
}
