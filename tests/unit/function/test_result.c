#include "function/function.h"

#include <criterion/criterion.h>

static struct arena arena;
static struct result result;

static void init(void)
{
    result = (struct result){.arena = &arena};
}

static void fini(void)
{
    json_decref(result.detail);
    arena_release(&arena);
}

TestSuite(result, .init = init, .fini = fini, .timeout = 20);

Test(result, each_verdict_sets_its_state_and_sentence)
{
    cr_assert_eq(result_done(&result, "restarted %s in %d ms", "nginx", 7), STATUS_OK);
    cr_assert_eq(result.state, RESULT_DONE);
    cr_assert(sv_eq(result.message, SV("restarted nginx in 7 ms")));
    cr_assert_eq(result_unchanged(&result, "already up"), STATUS_OK);
    cr_assert_eq(result.state, RESULT_UNCHANGED);
    cr_assert_eq(result_refused(&result, "not on the list"), STATUS_OK);
    cr_assert_eq(result.state, RESULT_REFUSED);
    cr_assert(sv_eq(result.message, SV("not on the list")));
}

Test(result, an_endless_sentence_is_cut)
{
    char text[4096];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    cr_assert_eq(result_done(&result, "%s", text), STATUS_OK);
    cr_assert_eq(result.message.len, 1023);
}

Test(result, details_are_collected_and_the_last_value_counts)
{
    result_set_text(&result, "unit", SV("nginx"));
    result_set_int(&result, "freed_bytes", 1);
    result_set_int(&result, "freed_bytes", INT64_MAX);
    struct strview json = json_canonical(&arena, result.detail);
    cr_assert(sv_eq(json, SV("{\"freed_bytes\":9223372036854775807,\"unit\":\"nginx\"}")), "%.*s",
              SV_ARG(json));
}

Test(result, a_reply_carries_status_type_and_body)
{
    cr_assert_eq(result_reply(&result, 201, SV("text/plain"), SV("made")), STATUS_OK);
    cr_assert_eq(result.state, RESULT_NONE);
    cr_assert_eq(result.http_status, 201);
    cr_assert(sv_eq(result.content_type, SV("text/plain")));
    cr_assert(sv_eq(result.body, SV("made")));
}
