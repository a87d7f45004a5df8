/* Alertmanager's API v2, as far as commands ask it (contract: api/v2/openapi.yaml of its source). One request
 * at a time, on a loop of its own. */
#ifndef BALM_CLI_ALERTMANAGER_H
#define BALM_CLI_ALERTMANAGER_H

#include "cli/cli.h"

struct alertmanager_cfg {
    const char *url; /* "http://127.0.0.1:9093", with its path prefix if it has one; NULL: none */
    /* For the proxy in front of it: USER:PASSWORD, or a bearer token. NULL: none. A path, so that no secret
     * is an argument. */
    const char *login_file;
};

/* The options, for a command's table; `member` is the cfg's struct alertmanager_cfg. */
#define CLI_ALERTMANAGER_OPTIONS(cfg_type, member, what_for)                                                 \
    {.name = "alertmanager",                                                                                 \
     .type = CONFIG_TEXT,                                                                                    \
     .offset = offsetof(cfg_type, member.url),                                                               \
     .value_name = "URL",                                                                                    \
     .help = what_for},                                                                                      \
    {                                                                                                        \
        .name = "alertmanager-login", .type = CONFIG_PATH, .offset = offsetof(cfg_type, member.login_file),  \
        .value_name = "FILE",                                                                                \
        .help = "where Alertmanager's proxy wants one: a file with USER:PASSWORD or a bearer token"          \
    }

/* GET or POST below /api/v2; body NULL: none. *ret_answer (owned) is NULL where the answer has no body.
 * STATUS_UNAVAILABLE: nobody answers there; STATUS_FAILED_PRECONDITION: what answers is no Alertmanager. */
enum status alertmanager_call(const struct alertmanager_cfg *cfg, const char *method, const char *path,
                              const json_t *body, json_t **ret_answer, struct error *err) MUST_USE;

#endif
