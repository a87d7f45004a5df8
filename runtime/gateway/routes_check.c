/* POST /system/check-function/NAME, for `balm doctor`: does the function come up and answer, and has it what
 * it needs? {"healthy":bool, "error"?, "missingSecrets":[…], "unlistedSecrets":[…]}, and for one that acts on
 * units or runs programs of the host "hostServices":[…], those that the list of host acts gives to it.
 * Nothing is called; a process is started if none runs. */
#include "gateway/function_secrets.h"
#include "gateway/routes.h"

static json_t *names_json(const struct strview *names, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        (void)json_array_append_new(list, json_text(names[i]));
    return list;
}

static void add_needs(struct gateway *g, const struct deployment *d, struct arena *a, json_t *o)
{
    struct strview *names;
    size_t n = function_secrets_missing(d, a, &names);
    (void)json_object_set_new(o, "missingSecrets", names_json(names, n));
    n = function_secrets_unlisted(d, a, &names);
    (void)json_object_set_new(o, "unlistedSecrets", names_json(names, n));
    const json_t *touches = json_object_get(d->manifest, "touches");
    size_t n_units = json_array_size(json_object_get(touches, "units"));
    if (n_units + json_array_size(json_object_get(touches, "programs")) == 0) return;
    (void)json_object_set_new(o, "hostKind", json_string(n_units > 0 ? "service" : "program"));
    n = broker_subjects_of(g->broker, d->spec.name, a, &names);
    (void)json_object_set_new(o, "hostServices", names_json(names, n));
}

void routes_check(struct gateway *g, const struct http_req *req, struct strview name, struct http_resp *resp)
{
    json_t *body = NULL, *o = json_object();
    struct error err;
    if (!route_read_body(g, req, resp, &body)) { /* it starts a process: no page in a browser may ask */
        json_decref(o);
        return;
    }
    json_release(body);
    struct deployment *d = supervisor_find(g, name);
    if (d == NULL) {
        json_decref(o);
        route_answer_text(req, resp, 404, "no such function");
        return;
    }
    d->users++;
    enum status s = supervisor_check(d, &err);
    (void)json_object_set_new(o, "healthy", json_boolean(s == STATUS_OK));
    if (s != STATUS_OK) (void)json_object_set_new(o, "error", json_string(err.message));
    add_needs(g, d, req->arena, o);
    d->users--;
    route_answer_json(req, resp, 200, o);
}
