#include "client/client_count.h"
#include "gateway/gateway_impl.h"
#include "metrics/catalog.h"

/* Also makes the counters, so that their first increase is one. */
static void on_collect(void *arg)
{
    static const char *const refusals[] = {"missing", "wrong", "limited"};
    const struct gateway *g = arg;
    struct strview platform = SV("balm");
    for (size_t i = 0; i < ARRAY_LEN(refusals); i++)
        (void)catalog_series(CATALOG_LOGINS_REFUSED, (struct strview[]){sv(refusals[i])});
    metrics_zero(catalog_family(CATALOG_FUNCTION_REPLICAS));
    for (const struct list *n = g->deployments.next; n != &g->deployments; n = n->next) {
        const struct deployment *d = container_of(n, struct deployment, node);
        metric_set(catalog_series(CATALOG_FUNCTION_REPLICAS, &d->spec.name), d->n_routed);
        (void)catalog_series(CATALOG_FUNCTION_CRASHES, &d->spec.name);
        if (d->info.acts) (void)catalog_series(CATALOG_CERTIFICATES_REFUSED, &d->spec.name);
    }
    metric_add(catalog_series(CATALOG_CERTIFICATES_REFUSED, &platform), client_take_refused_certificates());
}

void gateway_metrics_init(struct gateway *g)
{
    metrics_on_collect(on_collect, g);
}

void gateway_metrics_release(struct gateway *g)
{
    metrics_off_collect(on_collect, g);
}

void gateway_count_crash(const struct deployment *d)
{
    metric_add(catalog_series(CATALOG_FUNCTION_CRASHES, &d->spec.name), 1);
}

void gateway_count_refused_login(struct strview reason)
{
    metric_add(catalog_series(CATALOG_LOGINS_REFUSED, &reason), 1);
}

void gateway_count_refused_certificates(const struct deployment *d, unsigned n)
{
    if (n > 0) metric_add(catalog_series(CATALOG_CERTIFICATES_REFUSED, &d->spec.name), n);
}
