/* A function's answer: however its bytes are split, it is read the same, and never past its limits. */
#include "client/answer.h"

#include <assert.h>

#include "replay.h"

#define BODY_MAX (1 << 20)

static void read_in_steps(struct answer *a, struct strview bytes, size_t step, struct buf *body)
{
    size_t used = 0;
    for (size_t there = 0; there < bytes.len;) {
        there = there + step < bytes.len ? there + step : bytes.len;
        used += answer_feed(a, sv_sub(bytes, used, there), body);
        assert(used <= there);
    }
    answer_close(a);
    assert(a->state == ANSWER_END || a->state == ANSWER_BROKEN);
    assert(a->n_headers <= ANSWER_HEADERS_MAX && body->len <= bytes.len);
}

/* The first byte says how it is split. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct arena arena = {0};
    struct buf whole, split;
    struct answer one, two;
    if (n < 1) return 0;
    struct strview answer = sv_n((const char *)bytes + 1, n - 1);
    buf_init(&whole, BODY_MAX);
    buf_init(&split, BODY_MAX);
    answer_init(&one, bytes[0] > 127, &arena);
    answer_init(&two, bytes[0] > 127, &arena);
    read_in_steps(&one, answer, answer.len + 1, &whole);
    read_in_steps(&two, answer, (size_t)(bytes[0] % 64) + 1, &split);
    assert(one.state == two.state);
    if (one.state == ANSWER_END) {
        assert(one.status == two.status && one.n_headers == two.n_headers);
        assert(sv_eq(buf_view(&whole), buf_view(&split)));
    }
    buf_release(&whole);
    buf_release(&split);
    arena_release(&arena);
    return 0;
}
