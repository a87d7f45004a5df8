/* What balm explain and balm plan share: alerts, each with what it would lead to now.
 *
 *   body --body_decode_text--> webhook --signal records--> the platform's POST /function/dispatcher/explain
 *                                                   or, without one, a state that knows a runbooks folder
 *
 * JSON: time, frozen, counts {result: n}, alerts [what functions/dispatcher/preview.h says, and labels].
 * An alert that the intake would not take has result "rejected" and a reason. */
#ifndef BALM_CLI_PREVIEW_H
#define BALM_CLI_PREVIEW_H

#include "cli/cli.h"
#include "functions/alerts/webhook.h"

/* As the intake: a larger body is answered with 413 there. */
#define PREVIEW_BODY_MAX (8 * 1024 * 1024)

struct preview_cfg {
    struct cli_platform platform;
    const char *runbooks_dir; /* NULL: ask the platform */
    bool is_json;
};

/* New value, owned by the caller. STATUS_INVALID_ARGUMENT: a runbook is wrong. */
enum status cli_preview(const struct preview_cfg *cfg, const struct webhook *w, json_t **ret_preview,
                        struct error *err) MUST_USE;
/* What POST /explain answered, for people on stdout. */
void cli_preview_print(const struct preview_cfg *cfg, const json_t *preview);

/* The options of both, for their tables; `member` is the cfg's struct preview_cfg. */
#define CLI_PREVIEW_OPTIONS(cfg_type, member)                                                                \
    CLI_PLATFORM_OPTIONS(cfg_type, member.platform),                                                         \
        {.name = "runbooks",                                                                                 \
         .type = CONFIG_PATH,                                                                                \
         .offset = offsetof(cfg_type, member.runbooks_dir),                                                  \
         .value_name = "DIR",                                                                                \
         .help = "ask no platform, but this folder of runbooks, as if no alert had come before"},            \
    {                                                                                                        \
        .name = "json", .type = CONFIG_BOOL, .offset = offsetof(cfg_type, member.is_json),                   \
        .help = "JSON instead of text"                                                                       \
    }

#endif
