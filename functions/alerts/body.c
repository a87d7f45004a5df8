#include "functions/alerts/body.h"

#include "functions/alerts/events.h"

enum status body_decode(const struct http_req *req, struct webhook *ret_webhook, struct error *err)
{
    return events_are_in(req) ? events_decode(req, ret_webhook, err)
                              : webhook_decode(req->body, req->arena, ret_webhook, err);
}

static bool has_specversion(struct strview text, struct arena *a)
{
    struct json_scan s;
    bool is_first = true, has_it = false;
    struct strview name;
    json_scan_init(&s, text, a);
    if (!json_scan_open(&s, '{')) return false;
    while (!has_it && json_scan_member(&s, &is_first, &name)) {
        has_it = sv_eq(name, SV("specversion"));
        (void)json_scan_value(&s, NULL);
    }
    return has_it;
}

enum status body_decode_text(struct strview text, int64_t now_ns, struct arena *a,
                             struct webhook *ret_webhook, struct error *err)
{
    struct http_header type = {SV("content-type"), SV("application/json")};
    const struct http_req req = {.method = SV("POST"),
                                 .headers = &type,
                                 .n_headers = 1,
                                 .body = text,
                                 .arena = a,
                                 .received_unix_ns = now_ns};
    if (sv_starts_with(sv_trim(text), SV("[")))
        type.value = SV("application/cloudevents-batch+json");
    else if (has_specversion(text, a))
        type.value = SV("application/cloudevents+json");
    enum status s = body_decode(&req, ret_webhook, err);
    if (s == STATUS_OK && ret_webhook->n_alerts == 0)
        s = error_set(err, STATUS_INVALID_ARGUMENT, "JSON: a list without events, and no webhook's object");
    return s;
}
