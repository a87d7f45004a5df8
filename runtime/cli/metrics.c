#include "cli/cli.h"

#include <stddef.h>
#include <stdio.h>

#include "metrics/catalog.h"

struct metrics_cfg {
    bool is_json, is_markdown;
};

static const struct config_option options[] = {
    {.name = "json",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct metrics_cfg, is_json),
     .help = "as one JSON array"},
    {.name = "markdown",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct metrics_cfg, is_markdown),
     .help = "as the table of runtime/metrics/README.md"},
};

static void print_markdown(const struct catalog_entry *e)
{
    printf("| `%s` | %s | %s | ", e->name, metric_type_name(e->type), e->unit != NULL ? e->unit : "–");
    for (unsigned i = 0; i < catalog_labels(e); i++)
        printf("%s`%s`", i > 0 ? ", " : "", e->labels[i]);
    printf("%s | %s |\n", catalog_labels(e) == 0 ? "–" : "", e->help);
}

static void print_text(const struct catalog_entry *e)
{
    printf("%s", e->name);
    for (unsigned i = 0; i < catalog_labels(e); i++)
        printf("%s%s", i > 0 ? "," : "{", e->labels[i]);
    printf("%s  %s%s%s\n    %s\n", catalog_labels(e) > 0 ? "}" : "", metric_type_name(e->type),
           e->unit != NULL ? ", " : "", e->unit != NULL ? e->unit : "", e->help);
}

static enum status list(const void *cfg, char *const *arguments, struct arena *a, json_t **ret_all,
                        struct error *err)
{
    json_t *all = json_array();
    (void)cfg;
    (void)arguments;
    (void)a;
    (void)err;
    for (int id = 0; id < CATALOG_METRICS; id++) {
        const struct catalog_entry *e = catalog_entry((enum catalog_id)id);
        json_t *o = json_object(), *labels = json_array();
        for (unsigned i = 0; i < catalog_labels(e); i++)
            (void)json_array_append_new(labels, json_string(e->labels[i]));
        (void)json_object_set_new(o, "name", json_string(e->name));
        (void)json_object_set_new(o, "type", json_string(metric_type_name(e->type)));
        (void)json_object_set_new(o, "unit", e->unit != NULL ? json_string(e->unit) : json_null());
        (void)json_object_set_new(o, "labels", labels);
        (void)json_object_set_new(o, "help", json_string(e->help));
        (void)json_array_append_new(all, o);
    }
    *ret_all = all;
    return STATUS_OK;
}

static void print(const void *arg, const json_t *all, struct arena *a)
{
    const struct metrics_cfg *cfg = arg;
    (void)all;
    (void)a;
    if (cfg->is_markdown) puts("| metric | type | unit | labels | meaning |\n|---|---|---|---|---|");
    for (int id = 0; id < CATALOG_METRICS; id++)
        (cfg->is_markdown ? print_markdown : print_text)(catalog_entry((enum catalog_id)id));
}

static int run_metrics(const struct command *self, int argc, char **argv)
{
    static const struct cli_action action = {.arguments = "", .ask = list, .print = print};
    struct metrics_cfg cfg = {0};
    return cli_act(self, &action, 1, argc, argv, &cfg, &cfg.is_json);
}

const struct command command_metrics = {
    .name = "metrics",
    .arguments = "",
    .summary = "what /metrics shows: every metric, its labels and meaning",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .run = run_metrics,
};
