/* What functions take and answer, for people: /docs/ lists them, /docs/NAME shows one in Swagger UI, and
 * /function/NAME/openapi.json is its document; /openapi.json is the platform's own. That one and those of
 * core functions are written by hand (docs/platform.json, docs/NAME.json) and held against them by tests.
 * Nothing is started for any of it. Everything that a page loads is served from here, out of cfg.docs_dir
 * (`make swagger-ui` puts Swagger UI there). */
#include "gateway/routes.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/list.h"
#include "function/openapi.h"

#define ASSET_PART_BYTES (32 * 1024)
#define PAGE_BYTES_MAX   (2 * 1024 * 1024) /* a thousand functions */
#define PLATFORM_PAGE    "platform.html"   /* no function's name has a '.' */
#define HTML_TYPE        SV("text/html; charset=utf-8")

/* Scripts and styles come from files of ours and from nowhere else, and requests go nowhere else: what a
 * function says of itself is shown, never run. data: are the icons in Swagger UI's style sheet. */
#define CONTENT_POLICY                                                                                       \
    SV("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " \
       "base-uri 'none'; form-action 'none'; frame-ancestors 'none'")

static const struct asset {
    const char *name, *type;
} assets[] = {
    {"platform.json", "application/json"},
    {"alerts.json", "application/json"},
    {"audit.json", "application/json"},
    {"dispatcher.json", "application/json"},
    {"scaler.json", "application/json"},
    {"docs.css", "text/css; charset=utf-8"},
    {"docs.js", "text/javascript; charset=utf-8"},
    {"swagger-ui.css", "text/css; charset=utf-8"},
    {"swagger-ui-bundle.js", "text/javascript; charset=utf-8"},
    {"swagger-ui.LICENSE", "text/plain; charset=utf-8"},
    {"swagger-ui.NOTICE", "text/plain; charset=utf-8"},
};

static void add_safety(struct http_resp *resp)
{
    http_resp_header(resp, SV("content-security-policy"), CONTENT_POLICY);
    http_resp_header(resp, SV("x-content-type-options"), SV("nosniff"));
    http_resp_header(resp, SV("referrer-policy"), SV("no-referrer"));
    http_resp_header(resp, SV("cross-origin-resource-policy"), SV("same-origin"));
}

/* ---- documents ---- */

bool routes_docs_has_document(const struct deployment *d)
{
    return openapi_is_known(d->manifest);
}

void routes_docs_document(const struct deployment *d, const struct http_req *req, struct http_resp *resp)
{
    route_answer_json(req, resp, 200, openapi_document(d->manifest));
    http_resp_header(resp, SV("x-content-type-options"), SV("nosniff"));
}

/* ---- files ---- */

/* Sent in parts: Swagger UI's script whole would stay in malloc's hands for good. */
struct asset_read {
    const char *path;
    int fd;
    size_t bytes; /* of the file; then of the part */
    bool is_fine;
    char part[ASSET_PART_BYTES];
};

static void open_asset(void *arg)
{
    struct asset_read *r = arg;
    struct stat st;
    r->fd = open(r->path, O_RDONLY | O_CLOEXEC);
    r->is_fine = r->fd >= 0 && fstat(r->fd, &st) == 0 && S_ISREG(st.st_mode);
    if (r->is_fine) r->bytes = (size_t)st.st_size;
}

static void read_asset(void *arg)
{
    struct asset_read *r = arg;
    ssize_t n = read(r->fd, r->part, sizeof(r->part));
    r->is_fine = n > 0; /* its end is not reached by reading on: it is counted */
    r->bytes = n > 0 ? (size_t)n : 0;
}

static void send_asset(struct asset_read *r, size_t left, struct http_resp *resp)
{
    if (http_resp_stream(resp) != STATUS_OK) return;
    while (left > 0) {
        work_run(read_asset, r);
        size_t n = r->bytes < left ? r->bytes : left;
        if (!r->is_fine) { /* it was cut while we read */
            http_resp_abort(resp);
            return;
        }
        if (http_resp_write(resp, sv_n(r->part, n)) != STATUS_OK) return;
        left -= n;
    }
}

static const struct asset *find_asset(struct strview name)
{
    for (size_t i = 0; i < ARRAY_LEN(assets); i++)
        if (sv_eq(name, sv(assets[i].name))) return &assets[i];
    return NULL;
}

static void serve_asset(const struct gateway *g, const struct http_req *req, struct strview name,
                        struct http_resp *resp)
{
    const struct asset *asset = find_asset(name);
    struct asset_read *r = arena_zalloc(req->arena, sizeof(*r));
    r->fd = -1;
    if (asset != NULL && g->cfg.docs_dir != NULL) {
        r->path = arena_printf(req->arena, "%s/%s", g->cfg.docs_dir, asset->name).ptr;
        work_run(open_asset, r);
    }
    if (asset != NULL && r->is_fine) {
        resp->status = 200;
        http_resp_header(resp, SV("content-type"), sv(asset->type));
        http_resp_header(resp, SV("content-length"), arena_printf(req->arena, "%zu", r->bytes));
        http_resp_header(resp, SV("cache-control"), SV("private, max-age=600"));
        send_asset(r, sv_eq(req->method, SV("HEAD")) ? 0 : r->bytes, resp);
    } else {
        route_answer_text(req, resp, 404, "no such file");
    }
    if (r->fd >= 0) (void)close(r->fd);
}

static bool has_core_document(const struct gateway *g, struct strview name)
{
    bool is_core = false, is_written = false;
    for (unsigned i = 0; i < g->cfg.n_core; i++)
        is_core |= sv_eq(name, sv(g->cfg.core[i]->name));
    for (size_t i = 0; i < ARRAY_LEN(assets); i++) {
        struct strview file = sv(assets[i].name);
        is_written |= sv_starts_with(file, name) && sv_eq(sv_sub(file, name.len, file.len), SV(".json"));
    }
    return is_core && is_written;
}

void routes_docs_core_document(const struct gateway *g, const struct http_req *req, struct strview name,
                               struct http_resp *resp)
{
    http_resp_header(resp, SV("x-content-type-options"), SV("nosniff"));
    serve_asset(g, req, arena_printf(req->arena, "%.*s.json", SV_ARG(name)), resp);
}

/* ---- pages ---- */

static void append_html(struct buf *b, struct strview text)
{
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (c == '<' || c == '>' || c == '&' || c == '"')
            buf_printf(b, "&#%d;", c);
        else
            buf_append_char(b, c);
    }
}

static void begin_page(struct buf *b, struct strview title)
{
    buf_append(b, SV("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                     "<meta name=\"viewport\" content=\"width=device-width\">\n"
                     "<link rel=\"icon\" href=\"data:,\">\n<title>"));
    append_html(b, title);
    buf_append(b, SV(" – balm</title>\n"));
}

/* The page in the exchange's arena; `b` is released. */
static void answer_page(const struct http_req *req, struct buf *b, struct http_resp *resp)
{
    if (buf_status(b) == STATUS_OK)
        http_resp_set(resp, 200, HTML_TYPE, arena_copy(req->arena, buf_view(b)));
    else
        route_answer_text(req, resp, 507, "the list is larger than 2 MiB");
    buf_release(b);
}

static void append_row(struct buf *b, struct strview name, bool has_document, struct strview summary,
                       const char *acts, const char *state)
{
    buf_append(b, SV("<tr><td>"));
    if (has_document) buf_printf(b, "<a href=\"%.*s\">", SV_ARG(name));
    append_html(b, name);
    if (has_document) buf_append(b, SV("</a>"));
    buf_append(b, SV("</td><td>"));
    append_html(b, summary);
    buf_printf(b, "</td><td>%s</td><td>%s</td><td>", acts, state);
    if (has_document)
        buf_printf(b, "<a href=\"../function/%.*s" OPENAPI_PATH "\">openapi.json</a>", SV_ARG(name));
    buf_append(b, SV("</td></tr>\n"));
}

static void append_deployed(struct buf *b, const struct deployment *d)
{
    char state[32];
    (void)snprintf(state, sizeof(state), "%u running", deployment_replicas(d));
    append_row(b, d->spec.name, routes_docs_has_document(d), json_get_text(d->manifest, "summary"),
               d->info.is_destructive ? "yes, destructive"
               : d->info.acts         ? "yes"
                                      : "no",
               state);
}

static void serve_list(struct gateway *g, const struct http_req *req, struct http_resp *resp)
{
    struct buf b;
    buf_init(&b, PAGE_BYTES_MAX);
    begin_page(&b, SV("functions"));
    buf_append(
        &b,
        SV("<link rel=\"stylesheet\" href=\"ui/docs.css\">\n</head>\n<body>\n<main>\n"
           "<h1>Functions</h1>\n<p>Also <a href=\"" PLATFORM_PAGE
           "\">the platform's own API</a>.</p>\n<table>\n<thead><tr><th>function</th><th>what it does</th>"
           "<th>acts</th><th>now</th><th>document</th></tr></thead>\n<tbody>\n"));
    for (const struct list *n = g->deployments.next; n != &g->deployments; n = n->next)
        append_deployed(&b, container_of(n, struct deployment, node));
    for (unsigned i = 0; i < g->cfg.n_core; i++)
        append_row(&b, sv(g->cfg.core[i]->name), has_core_document(g, sv(g->cfg.core[i]->name)),
                   sv(g->cfg.core[i]->summary), "no", "core");
    buf_append(&b, SV("</tbody>\n</table>\n</main>\n</body>\n</html>\n"));
    answer_page(req, &b, resp);
}

/* Without Swagger UI there is still the document. */
static bool has_swagger_ui(const struct gateway *g, struct arena *a)
{
    return g->cfg.docs_dir != NULL &&
           access(arena_printf(a, "%s/swagger-ui.css", g->cfg.docs_dir).ptr, R_OK) == 0;
}

/* document: where it is, as seen from below /docs/. */
static void serve_document_page(const struct gateway *g, const struct http_req *req, struct strview title,
                                struct strview document, struct http_resp *resp)
{
    bool has_ui = has_swagger_ui(g, req->arena);
    struct buf b;
    buf_init(&b, PAGE_BYTES_MAX);
    begin_page(&b, title);
    buf_append(&b, SV("<link rel=\"stylesheet\" href=\"ui/docs.css\">\n"));
    if (has_ui) buf_append(&b, SV("<link rel=\"stylesheet\" href=\"ui/swagger-ui.css\">\n"));
    buf_printf(&b,
               "</head>\n<body data-document=\"%.*s\">\n<nav><a href=\"./\">all functions</a></nav>\n"
               "<div id=\"swagger-ui\"><p>%s: <a href=\"%.*s\">the document</a>.</p></div>\n",
               SV_ARG(document),
               has_ui ? "This page needs JavaScript" : "Swagger UI is not installed here (make swagger-ui)",
               SV_ARG(document));
    if (has_ui)
        buf_append(&b, SV("<script src=\"ui/swagger-ui-bundle.js\"></script>\n"
                          "<script src=\"ui/docs.js\"></script>\n"));
    buf_append(&b, SV("</body>\n</html>\n"));
    answer_page(req, &b, resp);
}

static void serve_function_page(struct gateway *g, const struct http_req *req, struct strview name,
                                struct http_resp *resp)
{
    const struct deployment *d = supervisor_find(g, name);
    if (d != NULL && routes_docs_has_document(d))
        name = d->spec.name;
    else if (!has_core_document(g, name)) {
        route_answer_text(req, resp, 404, "no such function, or it does not say what it takes");
        return;
    }
    serve_document_page(g, req, name, arena_printf(req->arena, "../function/%.*s" OPENAPI_PATH, SV_ARG(name)),
                        resp);
}

void routes_docs(struct gateway *g, const struct http_req *req, struct http_resp *resp)
{
    struct strview rest = sv_sub(req->path, sizeof("/docs") - 1, req->path.len);
    if (!route_is_reading(req)) {
        route_refuse_method(req, resp, "GET, HEAD");
        return;
    }
    add_safety(resp);
    if (sv_eq(req->path, SV(OPENAPI_PATH))) {
        serve_asset(g, req, SV("platform.json"), resp);
    } else if (rest.len == 0) { /* what the pages name is relative to /docs/ */
        resp->status = 308;
        http_resp_header(resp, SV("location"), SV("docs/"));
    } else if (rest.len == 1) {
        serve_list(g, req, resp);
    } else if (sv_starts_with(rest, SV("/ui/"))) {
        serve_asset(g, req, sv_sub(rest, sizeof("/ui/") - 1, rest.len), resp);
    } else if (sv_eq(rest, SV("/" PLATFORM_PAGE))) {
        serve_document_page(g, req, SV("the platform"), SV(".." OPENAPI_PATH), resp);
    } else {
        serve_function_page(g, req, sv_sub(rest, 1, rest.len), resp);
    }
}
