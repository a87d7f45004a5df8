#include "metrics/catalog.h"

#include <criterion/criterion.h>
#include <string.h>

Test(catalog, names_are_ours_and_given_once)
{
    for (int i = 0; i < CATALOG_METRICS; i++) {
        const char *name = catalog_entry((enum catalog_id)i)->name;
        cr_expect(strncmp(name, "balm_", 5) == 0, "%s", name);
        for (int k = 0; k < i; k++)
            cr_expect_str_neq(name, catalog_entry((enum catalog_id)k)->name);
    }
}

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n > m && strcmp(name + n - m, end) == 0;
}

/* Prometheus's practices: base unit, then _total for counters and only for them. */
Test(catalog, names_end_in_their_unit)
{
    for (int i = 0; i < CATALOG_METRICS; i++) {
        const struct catalog_entry *e = catalog_entry((enum catalog_id)i);
        cr_expect_eq(ends_with(e->name, "_total"), e->type == METRIC_COUNTER, "%s", e->name);
        cr_expect_eq(ends_with(e->name, "_seconds"), e->unit != NULL && strcmp(e->unit, "seconds") == 0, "%s",
                     e->name);
        cr_expect_eq(ends_with(e->name, "_bytes"), e->unit != NULL && strcmp(e->unit, "bytes") == 0, "%s",
                     e->name);
        cr_expect(ends_with(e->help, "."), "%s: help is a sentence", e->name);
    }
}

Test(catalog, entry_is_registered_once_with_its_labels)
{
    struct strview values[] = {SV("notify"), SV("dead")};
    metric_set(catalog_series(CATALOG_QUEUE_DEPTH, values), 3);
    cr_assert_eq(catalog_family(CATALOG_QUEUE_DEPTH), catalog_family(CATALOG_QUEUE_DEPTH));
    struct buf text;
    buf_init(&text, 1 << 20);
    metrics_write(&text);
    cr_expect(sv_contains(buf_view(&text), SV("# TYPE balm_queue_depth gauge\n")));
    cr_expect(sv_contains(buf_view(&text), SV("balm_queue_depth{function=\"notify\",state=\"dead\"} 3\n")));
    buf_release(&text);
}
