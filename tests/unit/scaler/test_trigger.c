#include "functions/scaler/trigger.h"

#include <criterion/criterion.h>

#include "base/list.h"

struct read {
    struct arena arena;
    struct trigger trigger;
    struct error err;
    enum status status;
};

/* key, value, key, value …, NULL */
static struct read read_pairs(const char *const *texts)
{
    struct read r = {0};
    struct trigger_pair pairs[8];
    size_t n = 0;
    for (; texts[2 * n] != NULL; n++)
        pairs[n] = (struct trigger_pair){sv(texts[2 * n]), sv(texts[2 * n + 1])};
    r.status = trigger_read(pairs, n, &r.arena, &r.trigger, &r.err);
    return r;
}
#define READ(...) read_pairs((const char *const[]){__VA_ARGS__, NULL})

static void assert_spec(const struct read *r, size_t i, const char *name, double target)
{
    cr_assert_eq(r->status, STATUS_OK, "%s", r->err.message);
    cr_assert_gt(r->trigger.n_specs, i);
    cr_assert(sv_eq(r->trigger.specs[i].name, sv(name)), "%.*s", SV_ARG(r->trigger.specs[i].name));
    cr_assert_eq(r->trigger.specs[i].target, target);
    cr_assert_eq(trigger_find(&r->trigger, sv(name)), &r->trigger.specs[i]);
}

Test(trigger, names_a_function_and_has_a_target_of_its_own)
{
    struct read r = READ("function", "disk-clean", "scalerAddress", "balm:9091");
    assert_spec(&r, 0, "balm-disk-clean", 10);
    cr_assert_eq(r.trigger.n_specs, 1);
    cr_assert(sv_eq(r.trigger.function, SV("disk-clean")));
    cr_assert_eq(r.trigger.specs[0].metric, TRIGGER_DEPTH);
    cr_assert_eq(trigger_find(&r.trigger, SV("balm-disk-clean-age")), NULL);
    cr_assert_eq(trigger_find(&r.trigger, SV("s0-balm-disk-clean")), NULL, "KEDA takes its prefix off");
    arena_release(&r.arena);
}

Test(trigger, may_be_about_all_functions_and_about_age)
{
    struct read r = READ("function", "*", "targetSize", "2.5", "targetAge", " 60 ");
    assert_spec(&r, 0, "balm-all", 2.5);
    assert_spec(&r, 1, "balm-all-age", 60);
    cr_assert_eq(r.trigger.function.len, 0);
    cr_assert_eq(r.trigger.specs[1].metric, TRIGGER_AGE);
    arena_release(&r.arena);
}

Test(trigger, takes_the_last_of_a_key_that_comes_twice)
{
    struct read r = READ("function", "Not A Name", "targetSize", "x", "function", "b", "targetSize", "4");
    assert_spec(&r, 0, "balm-b", 4);
    arena_release(&r.arena);
}

Test(trigger, refuses_what_is_no_function)
{
    static const char *const wrong[] = {
        "",      " ",
        "A",     "a_b",
        "a.b",   "-a",
        "a-",    "a/b",
        "..",    "**",
        "a b",   "\xc3\xa4",
        "a\xff", "a123456789b123456789c123456789d123456789e123456789f123456789abcd"};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        struct read r = READ("function", wrong[i]);
        cr_assert_eq(r.status, STATUS_INVALID_ARGUMENT, "'%s'", wrong[i]);
        cr_assert(sv_contains(sv(r.err.message), SV("function")));
        arena_release(&r.arena);
    }
    struct read r = READ("functionFromEnv", "a");
    cr_assert_eq(r.status, STATUS_INVALID_ARGUMENT);
    arena_release(&r.arena);
    static const struct trigger_pair none[1];
    cr_assert_eq(trigger_read(none, 0, &r.arena, &r.trigger, &r.err), STATUS_INVALID_ARGUMENT);
    arena_release(&r.arena);
}

Test(trigger, takes_a_name_of_the_greatest_length)
{
    struct read r = READ("function", "a123456789b123456789c123456789d123456789e123456789f123456789abc");
    assert_spec(&r, 0, "balm-a123456789b123456789c123456789d123456789e123456789f123456789abc", 10);
    arena_release(&r.arena);
}

Test(trigger, refuses_targets_that_the_hpa_cannot_use)
{
    static const char *const wrong[] = {"0",
                                        "0.0",
                                        "-1",
                                        "+1",
                                        "1e3",
                                        "nan",
                                        "inf",
                                        "0x10",
                                        "1,5",
                                        ".",
                                        "1.2.3",
                                        "10 0",
                                        "ten",
                                        "1000000001",
                                        "99999999999999999999999999999999",
                                        "000000000000000000000000000000001.0",
                                        "\xff"};
    static const char *const keys[] = {"targetSize", "targetAge"};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        for (size_t k = 0; k < ARRAY_LEN(keys); k++) {
            struct read r = READ("function", "a", keys[k], wrong[i]);
            cr_assert_eq(r.status, STATUS_INVALID_ARGUMENT, "%s '%s'", keys[k], wrong[i]);
            cr_assert(sv_contains(sv(r.err.message), sv(keys[k])));
            arena_release(&r.arena);
        }
    }
}

Test(trigger, takes_targets_up_to_the_border)
{
    static const struct {
        const char *text;
        double target;
    } right[] = {{"1", 1},  {"0.001", 0.001}, {"1000000000", 1e9}, {" 7\t", 7}, {".5", 0.5},
                 {"5.", 5}, {"", 10}};
    for (size_t i = 0; i < ARRAY_LEN(right); i++) {
        struct read r = READ("function", "a", "targetSize", right[i].text);
        assert_spec(&r, 0, "balm-a", right[i].target);
        arena_release(&r.arena);
    }
}
