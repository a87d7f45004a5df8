#include <stdio.h>

#include <criterion/criterion.h>

#include "base/clock.h"
#include "gateway/login_limit.h"

#define START_NS (1000 * NS_PER_S)

/* Distinct guesses until the address has to wait. */
static unsigned guesses(struct login_limit *l, struct strview peer, int64_t now_ns)
{
    unsigned n = 0;
    for (; login_limit_wait_s(l, peer, now_ns) == 0; n++) {
        char guess[32];
        int len = snprintf(guess, sizeof(guess), "Basic %u", n);
        (void)login_limit_failed(l, peer, sv_n(guess, (size_t)len), now_ns);
    }
    return n;
}

Test(login_limit, so_many_guesses_then_one_in_a_while)
{
    struct login_limit *l = login_limit_new();
    struct strview peer = SV("192.0.2.1:1000");
    cr_assert_eq(guesses(l, peer, START_NS), LOGIN_BUDGET / LOGIN_GUESS_COST);
    cr_assert_eq(login_limit_wait_s(l, peer, START_NS), 5);
    cr_assert_eq(login_limit_wait_s(l, SV("192.0.2.1:2000"), START_NS), 5,
                 "another port is the same address");
    cr_assert_eq(login_limit_wait_s(l, peer, START_NS + 5 * NS_PER_S), 0);
    (void)login_limit_failed(l, peer, SV("Basic again"), START_NS + 5 * NS_PER_S);
    cr_assert_eq(login_limit_wait_s(l, peer, START_NS + 5 * NS_PER_S), 5);
    cr_assert_eq(guesses(l, peer, START_NS + 1000 * NS_PER_S), LOGIN_BUDGET / LOGIN_GUESS_COST);
    login_limit_free(l);
}

Test(login_limit, other_addresses_are_not_touched)
{
    struct login_limit *l = login_limit_new();
    static const char *const peers[] = {"192.0.2.1:1",
                                        "192.0.2.2:1",
                                        "[::ffff:192.0.2.3]:1",
                                        "[::ffff:192.0.2.4]:1",
                                        "[2001:db8::1]:1",
                                        "[2001:db8:0:1::1]:1",
                                        "unix"};
    for (size_t i = 0; i < sizeof(peers) / sizeof(peers[0]); i++)
        cr_expect_eq(guesses(l, sv(peers[i]), START_NS), LOGIN_BUDGET / LOGIN_GUESS_COST, "%s", peers[i]);
    cr_expect_eq(guesses(l, SV("[2001:db8::2]:9"), START_NS), 0, "one host has a whole /64");
    login_limit_free(l);
}

Test(login_limit, the_same_mistake_again_and_again_is_no_guessing)
{
    struct login_limit *l = login_limit_new();
    struct strview peer = SV("192.0.2.1:1000");
    for (int i = 0; i < 130; i++)
        cr_assert_not(login_limit_failed(l, peer, i % 2 ? SV("Bearer old") : SV("Bearer older"), START_NS));
    cr_assert_eq(login_limit_wait_s(l, peer, START_NS), 0);
    for (int i = 0; i < 100; i++)
        (void)login_limit_failed(l, peer, SV("Bearer old"), START_NS);
    cr_assert_gt(login_limit_wait_s(l, peer, START_NS), 0, "but it is no way around the limit either");
    login_limit_free(l);
}

Test(login_limit, a_used_up_budget_is_told_once)
{
    struct login_limit *l = login_limit_new();
    struct strview peer = SV("192.0.2.1:1000");
    unsigned told = 0;
    for (int64_t at_ns = START_NS; at_ns < START_NS + 500 * NS_PER_S; at_ns += NS_PER_S) {
        char guess[32];
        int len = snprintf(guess, sizeof(guess), "Basic %lld", (long long)at_ns);
        told += login_limit_failed(l, peer, sv_n(guess, (size_t)len), at_ns);
    }
    cr_assert_eq(told, 1);
    login_limit_free(l);
}

Test(login_limit, more_addresses_than_are_remembered)
{
    struct login_limit *l = login_limit_new();
    struct strview peer = SV("192.0.2.1:1");
    (void)guesses(l, peer, START_NS);
    for (unsigned i = 0; i < 20 * LOGIN_ADDRESSES_MAX; i++) {
        char other[32];
        int len = snprintf(other, sizeof(other), "10.%u.%u.1:1", i / 256, i % 256);
        (void)login_limit_failed(l, sv_n(other, (size_t)len), SV("Basic x"), START_NS);
    }
    cr_assert_gt(login_limit_wait_s(l, peer, START_NS), 0, "those with the fullest budget make room");
    login_limit_free(l);
}
