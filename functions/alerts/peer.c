#include "functions/alerts/peer.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/file.h"
#include "client/client.h"
#include "log/log.h"

/* Of one question: a peer that is cut off must not hold up the round for long. */
#define ASK_TIMEOUT_NS   (10 * NS_PER_S)
#define STATUS_BYTES_MAX ((size_t)4 * 1024 * 1024) /* it has the whole configuration in it */
#define TOKEN_BYTES_MAX  4096
/* Everything: an alert that is left out would look as if it had ended. */
#define ALERTS_PATH "/api/v2/alerts?active=true&silenced=true&inhibited=true&unprocessed=true"

/* ---- where it is ---- */

static enum status bad_url(struct strview url, const char *why, struct error *err)
{
    /* Not the URL as a whole: there may be a password in it. */
    size_t at = sv_find(url, '@');
    return error_set(err, STATUS_INVALID_ARGUMENT, "--alertmanager '%.*s': %s",
                     SV_ARG(at < url.len ? sv_sub(url, at + 1, url.len) : url), why);
}

enum status peer_init(struct peer *peer, struct strview url, struct arena *a, struct error *err)
{
    size_t scheme = sv_starts_with(url, SV("https://")) ? 8 : sv_starts_with(url, SV("http://")) ? 7 : 0;
    struct strview rest = sv_sub(url, scheme, url.len), host = sv_sub(rest, 0, sv_find(rest, '/'));
    if (sv_find(host, '@') < host.len)
        return bad_url(url, "user and password belong into a file: --alertmanager-token-file", err);
    if (scheme == 0 || host.len == 0)
        return bad_url(url, "a URL starts with http:// or https:// and a host", err);
    if (sv_find(rest, '?') < rest.len || sv_find(rest, '#') < rest.len)
        return bad_url(url, "neither '?' nor '#' belongs into it", err);
    while (sv_ends_with(url, SV("/")))
        url.len--;
    *peer = (struct peer){.url = arena_copy(a, url), .name = arena_copy(a, host)};
    peer->up = catalog_series(CATALOG_ALERTMANAGER_UP, &peer->name);
    peer->last_seconds = catalog_series(CATALOG_ALERTMANAGER_LAST_ANSWER, &peer->name);
    return STATUS_OK;
}

/* ---- how it lets us in ---- */

struct login_file {
    const char *path;
    struct arena *arena;
    struct peer_login login;
    enum status status;
    struct error err;
};

/* A bearer token has no colon in it. */
static void read_login(void *arg)
{
    struct login_file *f = arg;
    struct strview text;
    f->status = file_read(f->arena, f->path, TOKEN_BYTES_MAX, &text, &f->err);
    if (f->status != STATUS_OK) return;
    text = sv_trim(text);
    if (text.len == 0) {
        f->status = error_set(&f->err, STATUS_FAILED_PRECONDITION, "%s is empty", f->path);
    } else if (sv_find(text, ':') == text.len) {
        f->login.bearer = text;
    } else {
        unsigned char *out = arena_alloc(f->arena, (text.len + 2) / 3 * 4 + 1);
        int n = EVP_EncodeBlock(out, (const unsigned char *)text.ptr, (int)text.len);
        f->login.basic = arena_printf(f->arena, "Basic %.*s", n, (const char *)out);
    }
}

enum status peer_login_read(const char *token_file, struct arena *a, struct peer_login *ret_login,
                            struct error *err)
{
    struct login_file f = {.path = token_file, .arena = a};
    if (token_file != NULL) work_run(read_login, &f);
    if (f.status != STATUS_OK) {
        *err = f.err;
        return error_prefix(err, f.status, "--alertmanager-token-file");
    }
    *ret_login = f.login;
    return STATUS_OK;
}

/* ---- asking ---- */

static enum status get(const struct peer *peer, const struct peer_login *login, const char *path,
                       size_t max_bytes, struct arena *a, struct http_reply *ret_reply, struct error *err)
{
    const struct http_header headers[] = {{SV("accept"), SV("application/json")},
                                          {SV("authorization"), login->basic}};
    const struct http_call call = {.url = arena_printf(a, "%.*s%s", SV_ARG(peer->url), path),
                                   .headers = headers,
                                   .n_headers = login->basic.len > 0 ? 2 : 1,
                                   .timeout_ns = ASK_TIMEOUT_NS,
                                   .max_body_bytes = max_bytes,
                                   .ca_file = login->ca_file,
                                   .bearer_token = login->bearer};
    enum status s = http_request(&call, a, ret_reply, err);
    if (s != STATUS_OK || ret_reply->status == 200) return s;
    return error_set(err, STATUS_UNAVAILABLE, "GET %.*s%.*s: HTTP %d", SV_ARG(peer->name),
                     (int)strcspn(path, "?"), path, ret_reply->status);
}

/* Its own clock as the answer shows it; ours where it does not. */
static int64_t clock_of(const struct http_reply *reply)
{
    struct strview date = http_header_get(reply->headers, reply->n_headers, SV("date"));
    char text[64];
    struct tm tm = {0};
    (void)snprintf(text, sizeof(text), "%.*s", SV_ARG(sv_sub(date, 0, sizeof(text) - 1)));
    const char *end = strptime(text, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    return end != NULL && *end == '\0' ? (int64_t)timegm(&tm) * NS_PER_S : clock_unix_ns();
}

struct reading {
    struct strview status_body, alerts_body, receiver;
    struct arena *arena;
    struct survey_answer *answer;
    enum status status;
    struct error err;
};

static void read_answers(void *arg)
{
    struct reading *g = arg;
    g->status = listing_decode_status(g->status_body, g->arena, &g->answer->status, &g->err);
    if (g->status != STATUS_OK) return;
    g->status = listing_decode(g->alerts_body, g->receiver, g->arena, &g->answer->listing, &g->err);
}

static enum status ask(const struct peer *peer, const struct peer_login *login, struct strview receiver,
                       struct arena *a, struct survey_answer *ret_answer, struct error *err)
{
    struct http_reply status, alerts;
    enum status s = get(peer, login, "/api/v2/status", STATUS_BYTES_MAX, a, &status, err);
    if (s == STATUS_OK) s = get(peer, login, ALERTS_PATH, LISTING_BYTES_MAX, a, &alerts, err);
    if (s != STATUS_OK) return s;
    struct survey_answer answer = {.now_ns = clock_of(&alerts)};
    struct reading reading = {.status_body = status.body,
                              .alerts_body = alerts.body,
                              .receiver = receiver,
                              .arena = a,
                              .answer = &answer};
    work_run(read_answers, &reading);
    if (reading.status != STATUS_OK) {
        *err = reading.err;
        return error_prefix(err, reading.status, "the answer of %.*s", SV_ARG(peer->name));
    }
    *ret_answer = answer;
    return STATUS_OK;
}

void peer_note_failure(struct peer *peer, const struct error *err)
{
    unsigned swallowed;
    peer->is_up = false;
    metric_set(peer->up, 0);
    (void)snprintf(peer->error, sizeof(peer->error), "%s", err->message);
    if (quiet_may_log(&peer->failed, &swallowed))
        log_warn("alerts", "Alertmanager could not be asked what fires", LOG_SV("alertmanager", peer->name),
                 LOG_STR("error", err->message), LOG_INT("others_since_last", swallowed));
}

enum status peer_ask(struct peer *peer, const struct peer_login *login, struct strview receiver,
                     struct arena *a, struct survey_answer *ret_answer)
{
    struct error err = {0};
    enum status s = ask(peer, login, receiver, a, ret_answer, &err);
    if (s != STATUS_OK) {
        if (!fiber_is_cancelled()) peer_note_failure(peer, &err);
        return s;
    }
    if (!peer->is_up) log_info("alerts", "Alertmanager answers", LOG_SV("alertmanager", peer->name));
    peer->is_up = true;
    peer->last_unix_ns = clock_unix_ns();
    peer->error[0] = '\0';
    metric_set(peer->up, 1);
    metric_set(peer->last_seconds, (double)peer->last_unix_ns / (double)NS_PER_S);
    return STATUS_OK;
}

json_t *peer_json(const struct peer *peer)
{
    json_t *o = json_object();
    int64_t age_ns = clock_unix_ns() - peer->last_unix_ns;
    char last[RFC3339_LEN + 1];
    rfc3339_format(peer->last_unix_ns, last);
    bool has_answered = peer->last_unix_ns != 0;
    (void)json_object_set_new(o, "name", json_text(peer->name));
    (void)json_object_set_new(o, "up", json_boolean(peer->is_up));
    (void)json_object_set_new(o, "last", has_answered ? json_string(last) : json_null());
    (void)json_object_set_new(o, "ageSeconds",
                              has_answered ? json_integer(age_ns > 0 ? age_ns / NS_PER_S : 0) : json_null());
    if (peer->error[0] != '\0') (void)json_object_set_new(o, "error", json_string(peer->error));
    return o;
}
