/* The connection: pings, resets, GOAWAY, peers that are none. */
#include "peer.h"

static struct reply *echo(struct peer *p)
{
    struct strview body = framed(SV("hello"));
    return ask(p, ECHO, body.ptr, body.len);
}

/* As grpc-go's estimator of bandwidth does it, but all at once. */
static void many_pings(struct peer *p)
{
    for (unsigned i = 0; i < 3000; i++) {
        put_frame(p, NGHTTP2_PING, NGHTTP2_FLAG_NONE, 0, SV("\2\4\x10\x10\t\x0e\7\7"));
        if (i % 500 == 499) settle(p);
    }
    cr_assert_eq(p->n_ping_acks, 3000);
    cr_assert_eq(p->n_goaways, 0, "pings are never policed");
    assert_status(echo(p), STATUS_OK);
}
Test(grpc_connection, answers_every_ping)
{
    with_peer(many_pings);
}

/* Without reading: nghttp2 gives up before they fill memory. */
static void ping_flood(struct peer *p)
{
    for (unsigned i = 0; i < 5000; i++)
        put_frame(p, NGHTTP2_PING, NGHTTP2_FLAG_NONE, 0, SV("12345678"));
    cr_assert_eq(session_receive(&p->session, p->by_hand.ptr, p->by_hand.len), STATUS_INVALID_ARGUMENT);
    buf_reset(&p->by_hand);
}
Test(grpc_connection, ends_under_pings_whose_answers_nobody_takes)
{
    with_peer(ping_flood);
}

static void rapid_resets(struct peer *p)
{
    struct strview body = framed(SV("x"));
    for (unsigned i = 0; i < 3000 && p->n_goaways == 0; i++) {
        const struct reply *r = ask(p, WAIT, body.ptr, body.len);
        nghttp2_submit_rst_stream(p->h2, NGHTTP2_FLAG_NONE, r->stream_id, NGHTTP2_CANCEL);
        settle(p);
        if (i < 900) cr_assert_eq(p->n_goaways, 0, "%u: cancelling is ordinary", i);
    }
    cr_assert_geq(p->n_goaways, 1);
    cr_assert_eq(p->session.n_calls, 0);
    fiber_event_set(&p->go);
    settle(p);
    cr_assert_eq(p->server->n_running, 0);
}
Test(grpc_connection, ends_where_streams_come_only_to_be_reset)
{
    with_peer(rapid_resets);
}

static void goaway_from_client(struct peer *p)
{
    struct strview body = framed(SV("x"));
    struct reply *r = ask(p, WATCH, body.ptr, body.len);
    nghttp2_submit_goaway(p->h2, NGHTTP2_FLAG_NONE, 0, NGHTTP2_NO_ERROR, NULL, 0);
    settle(p);
    cr_assert_eq(grpc_try_send(p->watched, SV("still here")), STATUS_OK);
    settle(p);
    cr_assert_eq(n_messages(r), 1);
    cr_assert_not(session_is_over(&p->session));
    grpc_call_finish(p->watched, STATUS_OK, NULL);
    settle(p);
    assert_status(r, STATUS_OK);
    cr_assert(session_is_over(&p->session));
}
Test(grpc_connection, serves_what_is_open_when_its_client_says_goodbye)
{
    with_peer(goaway_from_client);
}

/* ---- who is no peer ---- */

static void assert_refused(struct peer *p, struct strview bytes)
{
    struct grpc_session ss;
    struct buf out;
    buf_init(&out, 1 << 20);
    cr_assert_eq(session_init(&ss, p->server, p->session.wants_output, p), STATUS_OK);
    enum status s = session_receive(&ss, bytes.ptr, bytes.len);
    cr_assert_eq(session_take_output(&ss, &out, 1 << 19), STATUS_OK);
    cr_assert(s != STATUS_OK || session_is_over(&ss), "%.20s", bytes.ptr);
    buf_release(&out);
    session_release(&ss);
}

#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#define NOTHING "\0\0\0\4\0\0\0\0\0" /* empty SETTINGS */

static void strangers(struct peer *p)
{
    assert_refused(
        p, SV("GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n"));
    assert_refused(p, SV("\x16\3\1\2\0\1\0\1\xfc\3\3                                "));
    assert_refused(p, SV(PREFACE "\0\0\0\0\0\0\0\0\1"));                         /* DATA before SETTINGS */
    assert_refused(p, SV(PREFACE NOTHING "\xff\xff\xff\0\0\0\0\0\1"));           /* a frame of 16 MiB */
    assert_refused(p, SV(PREFACE NOTHING "\0\0\1\0\0\0\0\0\0x"));                /* DATA of stream 0 */
    assert_refused(p, SV(PREFACE NOTHING "\0\0\1\1\5\0\0\0\2\x83"));             /* an even stream */
    assert_refused(p, SV(PREFACE NOTHING "\0\0\4\1\5\0\0\0\1\xff\xff\xff\xff")); /* no HPACK */
    assert_refused(p, SV(PREFACE NOTHING "\0\0\4\x8\0\0\0\0\0\0\0\0\0"));        /* a window of 0 more */
    assert_refused(p, SV(PREFACE NOTHING "\0\0\1\1\1\0\0\0\1\x83\0\0\0\0\0\0\0\0\1")); /* DATA in a head */
    assert_refused(p, SV(PREFACE NOTHING "\0\0\4\5\4\0\0\0\1\0\0\0\2"));               /* PUSH_PROMISE */
    assert_status(echo(p), STATUS_OK);
}
Test(grpc_connection, of_what_is_no_http2_ends)
{
    with_peer(strangers);
}

/* ---- keepalive ---- */

static void idle(struct peer *p)
{
    int64_t now_ns = loop_now_ns(p->loop);
    cr_assert(session_sweep(&p->session, now_ns + 3600 * NS_PER_S), "nothing is open: nobody is asked");
    settle(p);
    cr_assert_eq(p->n_pings, 0);

    struct strview body = framed(SV("x"));
    (void)ask(p, WATCH, body.ptr, body.len);
    now_ns = loop_now_ns(p->loop);
    cr_assert(session_sweep(&p->session, now_ns + GRPC_KEEPALIVE_NS - NS_PER_S));
    settle(p);
    cr_assert_eq(p->n_pings, 0);
    cr_assert(session_sweep(&p->session, now_ns + GRPC_KEEPALIVE_NS + NS_PER_S));
    settle(p);
    cr_assert_eq(p->n_pings, 1);
    cr_assert_eq(p->session.pinged_ns, 0, "it has answered");

    now_ns = loop_now_ns(p->loop) + GRPC_KEEPALIVE_NS + NS_PER_S;
    cr_assert(session_sweep(&p->session, now_ns)); /* and this one's answer never comes */
    cr_assert(session_sweep(&p->session, now_ns + GRPC_DEAD_NS - NS_PER_S));
    cr_assert_not(session_sweep(&p->session, now_ns + GRPC_DEAD_NS + NS_PER_S));
}
Test(grpc_connection, that_is_silent_is_asked_whether_it_lives)
{
    with_peer(idle);
}
