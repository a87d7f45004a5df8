/* How many replicas a load asks for, and what the labels say about it. */
#include "gateway/scaling.h"

#include <criterion/criterion.h>

#include "base/clock.h"

/* ---- the formula ---- */

Test(scaling, a_load_is_divided_among_replicas_and_rounded_up)
{
    cr_expect_eq(scaling_replicas(0, 10, 0, 8), 0);
    cr_expect_eq(scaling_replicas(1, 10, 0, 8), 1);
    cr_expect_eq(scaling_replicas(10, 10, 0, 8), 1);
    cr_expect_eq(scaling_replicas(11, 10, 0, 8), 2);
    cr_expect_eq(scaling_replicas(37, 5, 0, 20), 8); /* as seen of KEDA and a HorizontalPodAutoscaler */
    cr_expect_eq(scaling_replicas(12, 5, 0, 20), 3);
    cr_expect_eq(scaling_replicas(1000, 10, 0, 8), 8);
    cr_expect_eq(scaling_replicas(0, 10, 2, 8), 2);
    cr_expect_eq(scaling_replicas(UINT64_MAX, 1, 0, 64), 64);
    cr_expect_eq(scaling_replicas(UINT64_MAX, UINT64_MAX, 0, 64), 1);
    cr_expect_eq(scaling_replicas(5, 0, 0, 64), 5);
}

Test(scaling, of_several_loads_the_one_that_asks_for_most_has_its_way)
{
    struct scaling_policy p = {.type = SCALING_CAPACITY, .max = 9, .target = 10, .proportion_permille = 1000};
    cr_expect_eq(scaling_wanted(&p, &(struct scaling_load){.inflight = 25, .backlog = 5}), 3);
    cr_expect_eq(scaling_wanted(&p, &(struct scaling_load){.inflight = 5, .backlog = 61}), 7);
    cr_expect_eq(scaling_wanted(&p, &(struct scaling_load){.per_s = 1000}), 0);
    p.type = SCALING_RPS;
    cr_expect_eq(scaling_wanted(&p, &(struct scaling_load){.per_s = 41, .inflight = 90}), 5);
    p.type = SCALING_QUEUE;
    p.target = 30;
    cr_expect_eq(scaling_wanted(&p, &(struct scaling_load){.per_s = 100, .inflight = 90, .backlog = 31}), 2);
}

Test(scaling, a_replica_is_loaded_with_a_share_of_its_target)
{
    struct scaling_policy p = {.type = SCALING_CAPACITY, .max = 9, .target = 50, .proportion_permille = 900};
    cr_expect_eq(scaling_wanted(&p, &(struct scaling_load){.inflight = 45}), 1);
    cr_expect_eq(scaling_wanted(&p, &(struct scaling_load){.inflight = 46}), 2);
    p.type = SCALING_QUEUE; /* as KEDA, which knows no share */
    cr_expect_eq(scaling_wanted(&p, &(struct scaling_load){.backlog = 50}), 1);
}

Test(scaling, it_goes_up_at_once_and_down_only_after_a_while)
{
    struct scaling_history h = {0};
    int64_t t = 1000 * NS_PER_S;
    cr_expect_eq(scaling_settle(&h, t, 2), 2);
    cr_expect_eq(scaling_settle(&h, t + NS_PER_S, 5), 5);
    cr_expect_eq(scaling_settle(&h, t + 2 * NS_PER_S, 1), 5);
    cr_expect_eq(scaling_settle(&h, t + SCALING_SETTLE_NS - 6 * NS_PER_S, 1), 5);
    cr_expect_eq(scaling_settle(&h, t + SCALING_SETTLE_NS + 6 * NS_PER_S, 1), 1);
    cr_expect_eq(scaling_settle(&h, t + 100 * SCALING_SETTLE_NS, 0), 0);
}

/* ---- labels ---- */

static struct scaling_policy read_labels(struct arena *a, const char *json,
                                         struct scaling_warnings *ret_warnings)
{
    struct scaling_policy p;
    json_t *labels = json != NULL ? json_loads(json, 0, NULL) : NULL;
    scaling_read_labels(labels, 300 * NS_PER_S, a, &p, ret_warnings);
    json_decref(labels);
    return p;
}

static struct scaling_policy read_fine(const char *json)
{
    struct arena a = {0};
    struct scaling_warnings w;
    struct scaling_policy p = read_labels(&a, json, &w);
    cr_expect_eq(w.n, 0, "%s: %.*s", json, SV_ARG(w.items[0]));
    arena_release(&a);
    return p;
}

#define S "\"com.openfaas.scale."

Test(scaling, without_labels_a_function_goes_to_zero_and_up_to_five)
{
    struct scaling_policy p = read_fine(NULL);
    cr_expect(p.type == SCALING_CAPACITY && p.target == 50 && p.proportion_permille == 900);
    cr_expect(p.floor == 0 && p.wake == 1 && p.max == 5 && !p.has_max && p.idle_ns == 300 * NS_PER_S);
    p = read_fine("{\"team\":\"ours\"}");
    cr_expect(p.floor == 0 && p.max == 5);
}

Test(scaling, labels_say_how_far_and_by_what)
{
    struct scaling_policy p = read_fine("{" S "min\":\"2\"," S "max\":\"20\"," S "type\":\"rps\"," S
                                        "target\":\"100\"," S "target-proportion\":\"0.75\"}");
    cr_expect(p.floor == 2 && p.wake == 2 && p.max == 20 && p.has_max && p.type == SCALING_RPS);
    cr_expect(p.target == 100 && p.proportion_permille == 750);
    p = read_fine("{" S "min\":\"3\"," S "zero\":\"true\"," S "zero-duration\":\"1m30s\"}");
    cr_expect(p.floor == 0 && p.wake == 3 && p.idle_ns == 90 * NS_PER_S);
    p = read_fine("{" S "zero\":\"false\"}");
    cr_expect(p.floor == 1 && p.wake == 1);
    p = read_fine("{" S "min\":\"7\"}");
    cr_expect(p.floor == 7 && p.max == 7);
    p = read_fine("{" S "type\":\"queue\"}");
    cr_expect(p.type == SCALING_QUEUE && p.target == SCALING_BACKLOG_TARGET);
    p = read_fine("{" S "target-proportion\":\"1\"}");
    cr_expect(p.proportion_permille == 1000);
}

Test(scaling, what_cannot_be_honoured_is_said_and_its_default_used)
{
    static const struct {
        const char *labels, *says;
    } bad[] = {
        {"{" S "min\":\"many\"}", "scale.min 'many'"},
        {"{" S "min\":\"-1\"}", "scale.min"},
        {"{" S "max\":\"0\"}", "scale.max '0'"},
        {"{" S "target\":\"1.5\"}", "scale.target '1.5'"},
        {"{" S "zero\":\"yes\"}", "scale.zero 'yes'"},
        {"{" S "zero-duration\":\"soon\"}", "scale.zero-duration 'soon'"},
        {"{" S "zero-duration\":\"0\"}", "scale.zero-duration '0'"},
        {"{" S "target-proportion\":\"2\"}", "scale.target-proportion '2'"},
        {"{" S "target-proportion\":\"0.0\"}", "scale.target-proportion"},
        {"{" S "target-proportion\":\"0.-1\"}", "scale.target-proportion"},
        {"{" S "type\":\"cpu\"," S "target\":\"500\"}", "scale.type 'cpu': not measured"},
        {"{" S "factor\":\"20\"}", "scale.factor '20': not known"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct arena a = {0};
        struct scaling_warnings w;
        struct scaling_policy p = read_labels(&a, bad[i].labels, &w);
        cr_assert_eq(w.n, 1, "%s", bad[i].labels);
        cr_expect(sv_contains(w.items[0], sv(bad[i].says)), "%.*s", SV_ARG(w.items[0]));
        cr_expect(p.type == SCALING_CAPACITY && p.target == 50 && p.proportion_permille == 900 &&
                  p.floor == 0 && p.wake == 1 && p.max == 5 && p.idle_ns == 300 * NS_PER_S);
        arena_release(&a);
    }
}

Test(scaling, bounds_stay_within_each_other_and_the_machine)
{
    struct arena a = {0};
    struct scaling_warnings w;
    struct scaling_policy p = read_labels(&a, "{" S "min\":\"9\"," S "max\":\"3\"}", &w);
    cr_expect(w.n == 1 && p.floor == 3 && p.wake == 3 && p.max == 3);
    p = read_labels(&a, "{" S "min\":\"1000\"," S "max\":\"1000\"}", &w);
    cr_expect(w.n == 2 && p.floor == SCALING_REPLICAS_MAX && p.max == SCALING_REPLICAS_MAX);
    json_t *labels = json_object();
    for (int i = 0; i < 100; i++)
        (void)json_object_set_new(labels, arena_printf(&a, "com.openfaas.scale.x%d", i).ptr,
                                  json_string("1"));
    scaling_read_labels(labels, 0, &a, &p, &w);
    cr_expect(w.n == SCALING_WARNINGS_MAX);
    json_decref(labels);
    arena_release(&a);
}
