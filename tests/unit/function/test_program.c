#include <criterion/criterion.h>

#include "base/list.h"
#include "function/program_impl.h"

static const struct program program = {.name = "fixer"};

static enum status read_result(struct arena *a, const char *text, struct result *ret, struct error *err)
{
    *ret = (struct result){.arena = a};
    *err = (struct error){0};
    return program_result(&program, sv(text), ret, err);
}

Test(program, what_a_bot_answers_is_its_result)
{
    static const struct {
        const char *text;
        enum result_state state;
        const char *message;
    } cases[] = {
        {"{\"state\":\"done\",\"message\":\"it is up\"}\n", RESULT_DONE, "it is up"},
        {" {\"state\":\"unchanged\"}", RESULT_UNCHANGED, ""},
        {"{\"state\":\"refused\",\"message\":\"not mine: 100%s\",\"more\":1}", RESULT_REFUSED,
         "not mine: 100%s"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct arena a = {0};
        struct result r;
        struct error err;
        cr_assert_eq(read_result(&a, cases[i].text, &r, &err), STATUS_OK, "%s", err.message);
        cr_expect_eq(r.state, cases[i].state);
        cr_expect(sv_eq(r.message, sv(cases[i].message)), "%.*s", SV_ARG(r.message));
        cr_expect_null(r.detail);
        arena_release(&a);
    }
}

Test(program, detail_and_undo_come_along)
{
    struct arena a = {0};
    struct result r;
    struct error err;
    cr_assert_eq(read_result(&a, "{\"state\":\"done\",\"detail\":{\"n\":3},\"undo\":\"start it\"}", &r, &err),
                 STATUS_OK);
    cr_expect_eq(json_integer_value(json_object_get(r.detail, "n")), 3);
    cr_expect(sv_eq(r.undo, SV("start it")));
    json_release(r.detail);
    arena_release(&a);
}

Test(program, failures_say_whether_to_try_again)
{
    struct arena a = {0};
    struct result r;
    struct error err;
    cr_expect_eq(read_result(&a, "{\"state\":\"failed\",\"message\":\"no\"}", &r, &err), STATUS_INTERNAL);
    cr_expect_str_eq(err.message, "no");
    cr_expect_not(err.can_retry);
    cr_expect_eq(read_result(&a, "{\"state\":\"failed\",\"retry\":true}", &r, &err), STATUS_INTERNAL);
    cr_expect_str_eq(err.message, "it gave no reason");
    cr_expect(err.can_retry);
    arena_release(&a);
}

/* It ended well, so it may have done what it was asked: that is not "failed". */
Test(program, what_says_nothing_is_unknown)
{
    static const char *const texts[] = {"",
                                        "done",
                                        "{}",
                                        "[]",
                                        "{\"state\":1}",
                                        "{\"state\":\"\"}",
                                        "{\"state\":\"finished\"}",
                                        "{\"state\":\"unknown\",\"message\":\"cut\"}",
                                        "{\"state\":\"done\"} and more",
                                        "{\"state\":\"failed\",\"state\":\"done\"}",
                                        "{\"state\":\"done\",\"message\":\"\xff\"}"};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct arena a = {0};
        struct result r;
        struct error err;
        cr_expect_eq(read_result(&a, texts[i], &r, &err), STATUS_UNKNOWN, "%s", texts[i]);
        cr_expect_neq(err.message[0], '\0');
        arena_release(&a);
    }
}
