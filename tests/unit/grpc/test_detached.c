/* Streams without a fiber. */
#include "peer.h"

static struct reply *watch(struct peer *p)
{
    struct strview body = framed(SV("x"));
    return ask(p, WATCH, body.ptr, body.len);
}

static void told(struct peer *p)
{
    const struct reply *r = watch(p);
    cr_assert_eq(p->n_ended, 1);
    cr_assert_eq(p->server->n_running, 0);
    cr_assert_eq(r->n_heads, 0);
    cr_assert_eq(grpc_try_send(p->watched, SV("a")), STATUS_OK);
    cr_assert_eq(grpc_try_send(p->watched, SV("b")), STATUS_RESOURCE_EXHAUSTED, "one is on its way");
    settle(p);
    cr_assert_eq(grpc_try_send(p->watched, SV("b")), STATUS_OK);
    settle(p);
    cr_assert_eq(n_messages(r), 2);
    grpc_call_finish(p->watched, STATUS_UNAVAILABLE, "enough");
    settle(p);
    assert_status(r, STATUS_UNAVAILABLE);
    cr_assert_str_eq(r->grpc_message, "enough");
    cr_assert(r->is_closed);
    cr_assert_eq(p->gone, 0, "who ends it needs not be told");
}
Test(grpc_detached, is_told_and_finished)
{
    with_peer(told);
}

static void finished_with_news(struct peer *p)
{
    const struct reply *r = watch(p);
    cr_assert_eq(grpc_try_send(p->watched, SV("a")), STATUS_OK);
    grpc_call_finish(p->watched, STATUS_OK, NULL);
    settle(p);
    cr_assert_eq(n_messages(r), 1);
    assert_status(r, STATUS_OK);
}
Test(grpc_detached, finished_at_once_still_tells)
{
    with_peer(finished_with_news);
}

static void reset_by_client(struct peer *p)
{
    const struct reply *r = watch(p);
    nghttp2_submit_rst_stream(p->h2, NGHTTP2_FLAG_NONE, r->stream_id, NGHTTP2_CANCEL);
    settle(p);
    cr_assert_eq(p->gone, 1);
    cr_assert_eq(p->session.n_calls, 0);
    r = watch(p);
    cr_assert_eq(grpc_try_send(p->watched, SV("a")), STATUS_OK); /* and its bytes wait when it goes */
    nghttp2_submit_rst_stream(p->h2, NGHTTP2_FLAG_NONE, r->stream_id, NGHTTP2_CANCEL);
    settle(p);
    cr_assert_eq(p->gone, 2);
}
Test(grpc_detached, is_gone_with_its_client)
{
    with_peer(reset_by_client);
}

static void session_ends(struct peer *p)
{
    (void)watch(p);
    session_release(&p->session);
    cr_assert_eq(p->gone, 1);
    cr_assert_eq(session_init(&p->session, p->server, p->session.wants_output, p), STATUS_OK);
}
Test(grpc_detached, is_gone_with_its_connection)
{
    with_peer(session_ends);
}

/* The handler has detached and still waits for something when its client goes. */
static void gone_while_running(struct peer *p)
{
    p->detach_first = true;
    const struct reply *r = watch(p);
    cr_assert_eq(p->server->n_running, 1);
    nghttp2_submit_rst_stream(p->h2, NGHTTP2_FLAG_NONE, r->stream_id, NGHTTP2_CANCEL);
    settle(p);
    cr_assert_eq(p->gone, 0, "not while the handler may use the call");
    cr_assert_eq(grpc_try_send(p->watched, SV("a")), STATUS_RESOURCE_EXHAUSTED);
    fiber_event_set(&p->go);
    settle(p);
    cr_assert_eq(p->gone, 1);
    cr_assert_eq(p->server->n_running, 0);
}
Test(grpc_detached, is_gone_behind_its_handler)
{
    with_peer(gone_while_running);
}

static void finished_while_running(struct peer *p)
{
    p->detach_first = true;
    const struct reply *r = watch(p);
    grpc_call_finish(p->watched, STATUS_OK, NULL);
    settle(p);
    assert_status(r, STATUS_OK);
    fiber_event_set(&p->go);
    settle(p);
    cr_assert_eq(p->gone, 0);
    cr_assert_eq(p->session.n_calls, 0);
    r = watch(p); /* and with its client gone besides */
    cr_assert_eq(n_messages(r), 0);
}
Test(grpc_detached, may_be_finished_while_its_handler_runs)
{
    with_peer(finished_while_running);
}

/* ---- drain ---- */

static void drained(struct peer *p)
{
    const struct reply *r = watch(p);
    struct strview body = framed(SV("x"));
    struct reply *waits = ask(p, WAIT, body.ptr, body.len), *talks = begin(p, TALK, body.ptr, body.len);
    session_drain(&p->session);
    settle(p);
    cr_assert_eq(p->n_goaways, 1);
    cr_assert_eq(p->goaway_last[0], INT32_MAX);
    cr_assert_not(r->is_closed);
    const struct reply *late =
        ask(p, ECHO, body.ptr, body.len); /* was on its way: nghttp2's client refuses itself */
    (void)late;
    session_drain_now(&p->session);
    session_drain_now(&p->session);
    settle(p);
    cr_assert_eq(p->n_goaways, 2);
    cr_assert_eq(p->goaway_code, NGHTTP2_NO_ERROR);
    cr_assert_eq(p->goaway_last[1] % 2, 1, "even ids are none of a client");
    assert_status(r, STATUS_OK);
    assert_status(talks, STATUS_OK);
    cr_assert_eq(n_messages(talks), 1);
    cr_assert_eq(p->gone, 1);
    cr_assert_not(waits->is_closed, "who is under way may end");
    cr_assert_not(session_is_over(&p->session));
    fiber_event_set(&p->go);
    settle(p);
    assert_status(waits, STATUS_OK);
    cr_assert(session_is_over(&p->session));
}
Test(grpc_detached, ends_well_when_the_server_goes)
{
    with_peer(drained);
}

static void drained_before_detaching(struct peer *p)
{
    p->detach_first = true;
    const struct reply *r = watch(p);
    session_drain(&p->session);
    session_drain_now(&p->session);
    settle(p);
    fiber_event_set(&p->go);
    settle(p);
    assert_status(r, STATUS_OK);
    cr_assert_eq(p->gone, 1);
    cr_assert(session_is_over(&p->session));
}
Test(grpc_detached, ends_well_too_where_its_handler_was_under_way)
{
    with_peer(drained_before_detaching);
}

/* The request is in, its handler has not begun: nothing is detached yet when the server ends its streams. */
static void drained_before_running(struct peer *p)
{
    struct strview body = framed(SV("x"));
    struct reply *r = begin(p, WATCH, "", 0);
    put_frame(p, NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, r->stream_id, body);
    cr_assert_eq(session_receive(&p->session, p->by_hand.ptr, p->by_hand.len), STATUS_OK);
    buf_reset(&p->by_hand);
    session_drain_now(&p->session);
    settle(p);
    assert_status(r, STATUS_OK);
    cr_assert_eq(p->gone, 1);
    cr_assert(session_is_over(&p->session));
}
Test(grpc_detached, ends_well_too_where_its_handler_had_not_begun)
{
    with_peer(drained_before_running);
}
