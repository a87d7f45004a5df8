#include "function/openapi.h"

#include "base/version.h"

#define DESCRIPTION_MAX (4 * 1024 * 1024) /* more than a whole manifest may have (YAML_BYTES_MAX) */

/* ---- schemas ---- */

/* OpenAPI's own dialect is JSON Schema 2020-12 and more: nothing has to say so. */
static json_t *embedded_schema(const json_t *schema)
{
    json_t *copy = json_deep_copy(schema);
    json_object_del(copy, "$schema");
    return copy;
}

static json_t *text_schema(const char *description)
{
    return json_pack("{s:s, s:s}", "type", "string", "description", description);
}

static json_t *time_schema(const char *description)
{
    return json_pack("{s:s, s:s, s:s}", "type", "string", "format", "date-time", "description", description);
}

static json_t *closed_object(json_t *properties, json_t *required)
{
    return json_pack("{s:s, s:b, s:o, s:o}", "type", "object", "additionalProperties", 0, "properties",
                     properties, "required", required);
}

/* What both answers of an acting function have (function/invocation.h). */
static json_t *answer_properties(json_t *state)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:{s:s, s:i, s:s}}", "state", state, "message",
                     text_schema("one sentence"), "entered", time_schema("when the handler was entered"),
                     "left", time_schema("when it returned"), "certificatesRefused", "type", "integer",
                     "minimum", 1, "description",
                     "peers whose certificate was not trusted, since the last answer");
}

static json_t *result_schema(void)
{
    json_t *properties =
        answer_properties(json_pack("{s:[s,s,s], s:s}", "enum", "done", "unchanged", "refused", "description",
                                    "refused: a precondition says no, and nothing was changed"));
    json_object_set_new(properties, "detail", json_pack("{s:s}", "$ref", "#/components/schemas/Detail"));
    json_object_set_new(properties, "undo", text_schema("the command that takes it back"));
    return closed_object(properties,
                         json_pack("[s,s,s,s,s]", "state", "message", "detail", "entered", "left"));
}

static json_t *failure_schema(void)
{
    json_t *properties = answer_properties(json_pack("{s:s}", "const", "failed"));
    json_object_set_new(properties, "code", text_schema("one of gRPC's codes, such as UNAVAILABLE"));
    json_object_set_new(properties, "retry",
                        json_pack("{s:s, s:s}", "type", "boolean", "description", "trying again can help"));
    return closed_object(properties, json_pack("[s,s,s,s]", "state", "message", "code", "retry"));
}

/* Of a direct call through the gateway (functions/dispatcher/direct.c): what the decision on it came to. */
static json_t *outcome_schema(void)
{
    json_t *state = json_pack("{s:[s,s,s,s,s,s,s,s], s:s}", "enum", "done", "unchanged", "refused", "failed",
                              "unknown", "expired", "dead", "pending", "description",
                              "refused: by a gate or by the function; pending: no outcome in time");
    json_t *properties = json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:{s:s}}", "incident",
                                   text_schema("its identity: balm why tells the rest"), "intent",
                                   text_schema("of the act, if there is one"), "state", state, "code",
                                   text_schema("one of gRPC's codes, such as UNAVAILABLE"), "gate",
                                   text_schema("which gate refused"), "message", text_schema("one sentence"),
                                   "undo", text_schema("the command that takes it back"), "detail", "$ref",
                                   "#/components/schemas/Detail");
    return closed_object(properties, json_pack("[s,s]", "incident", "state"));
}

static json_t *error_schema(void)
{
    return closed_object(json_pack("{s:o}", "error", text_schema("one sentence")), json_pack("[s]", "error"));
}

/* A function that does not act and has no parameters takes any body. */
static bool takes_any_body(const json_t *m)
{
    const json_t *properties = json_object_get(json_object_get(m, "schema"), "properties");
    return !json_is_true(json_object_get(m, "acts")) && json_object_size(properties) == 0;
}

static json_t *make_schemas(const json_t *m, bool acts)
{
    json_t *schemas = json_pack("{s:o}", "Error", error_schema());
    if (!takes_any_body(m))
        json_object_set_new(schemas, "Parameters", embedded_schema(json_object_get(m, "schema")));
    if (!acts) return schemas;
    json_object_set_new(schemas, "Detail", embedded_schema(json_object_get(m, "reply")));
    json_object_set_new(schemas, "Result", result_schema());
    json_object_set_new(schemas, "Failure", failure_schema());
    json_object_set_new(schemas, "Outcome", outcome_schema());
    return schemas;
}

static bool asks_for_key(const json_t *m)
{
    return sv_eq(json_get_text(m, "auth"), SV("api-key"));
}

/* ---- responses ---- */

/* The runtime's own answers are one sentence, of a function as JSON and of a gateway before it as text. */
static json_t *error_response(const char *description, bool acts)
{
    json_t *schema =
        acts ? json_pack("{s:[{s:s}, {s:s}, {s:s}]}", "anyOf", "$ref", "#/components/schemas/Failure", "$ref",
                         "#/components/schemas/Outcome", "$ref", "#/components/schemas/Error")
             : json_pack("{s:s}", "$ref", "#/components/schemas/Error");
    return json_pack("{s:s, s:{s:{s:o}, s:{s:{s:s}}}}", "description", description, "content",
                     "application/json", "schema", schema, "text/plain", "schema", "type", "string");
}

static json_t *key_refused_response(void)
{
    json_t *response = error_response("no API key, or one that is not taken", false);
    json_object_set_new(response, "headers",
                        json_pack("{s:{s:s, s:{s:s}}}", "www-authenticate", "description",
                                  "the header that is missing", "schema", "type", "string"));
    return response;
}

static json_t *make_responses(const json_t *m, bool acts)
{
    json_t *responses =
        json_pack("{s:o, s:o, s:o, s:o, s:o}", "400",
                  error_response("a parameter is missing, unknown or not allowed", acts), "413",
                  error_response("the body is larger than the function takes", acts), "429",
                  error_response("as much is under way as the function takes at once", acts), "4XX",
                  error_response("it failed by what was asked", acts), "5XX",
                  error_response("it failed otherwise", acts));
    if (asks_for_key(m)) json_object_set_new(responses, "401", key_refused_response());
    /* A time limit that is over has no body, whoever answers. */
    json_object_set_new(responses, "504", error_response("the time limit is over", acts));
    if (acts) {
        json_object_set_new(responses, "200",
                            json_pack("{s:s, s:{s:{s:{s:[{s:s}, {s:s}]}}}}", "description",
                                      "what came of it; of a direct call, with its incident", "content",
                                      "application/json", "schema", "anyOf", "$ref",
                                      "#/components/schemas/Result", "$ref", "#/components/schemas/Outcome"));
        json_object_set_new(
            responses, "403",
            error_response("not signed for it, no runbook takes it, or a gate refused", acts));
        json_object_set_new(responses, "401", error_response("a direct call without the login", acts));
    } else {
        json_object_set_new(responses, "200",
                            json_pack("{s:s, s:{s:{}}}", "description", "the answer", "content", "*/*"));
    }
    return responses;
}

/* ---- what it says to people ---- */

static void append_list(struct buf *b, const json_t *list)
{
    const char *separator = "";
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        if (!json_is_string(item)) continue;
        buf_printf(b, "%s%s", separator, json_string_value(item));
        separator = ", ";
    }
}

static void append_line(struct buf *b, const char *label, const json_t *m, const char *member)
{
    struct strview text = json_get_text(m, member);
    if (text.len > 0) buf_printf(b, "- **%s**: %.*s\n", label, SV_ARG(text));
}

/* Markdown, as the field is defined. */
static json_t *make_description(const json_t *m, bool acts)
{
    struct buf b;
    buf_init(&b, DESCRIPTION_MAX);
    if (acts)
        buf_append(
            &b, SV("This function **acts**. It takes invocations that the platform signed for one "
                   "intent, which a runbook makes under its guardrails. A direct call through the "
                   "gateway needs the login and is decided on like an alert: a runbook has to take it.\n\n"));
    if (json_is_true(json_object_get(m, "destructive")))
        buf_append(&b, SV("- **destructive**: what it removes cannot be made again\n"));
    const char *kind;
    json_t *list;
    json_object_foreach(json_object_get(m, "touches"), kind, list)
    {
        buf_printf(&b, "- **may touch %s**: ", kind);
        append_list(&b, list);
        buf_append_char(&b, '\n');
    }
    append_line(&b, "verifies", m, "verify");
    append_line(&b, "undo", m, "undo");
    append_line(&b, "if its answer is lost", m, "on_unknown");
    append_line(&b, "time limit", m, "timeout");
    json_t *text = json_text(buf_view(&b));
    buf_release(&b);
    return text;
}

/* ---- the whole ---- */

static json_t *make_request(const json_t *m)
{
    if (takes_any_body(m)) /* an example, or a page would have no field to write in */
        return json_pack("{s:{s:{s:{s:s}, s:{s:s}}, s:{s:{s:s}}, s:{}}}", "content", "application/json",
                         "schema", "description", "anything", "example", "hello", "world", "text/plain",
                         "schema", "type", "string", "application/octet-stream");
    const json_t *required = json_object_get(json_object_get(m, "schema"), "required");
    return json_pack("{s:b, s:{s:{s:{s:s}}}}", "required", json_array_size(required) > 0, "content",
                     "application/json", "schema", "$ref", "#/components/schemas/Parameters");
}

static json_t *make_operation(const json_t *m, bool acts)
{
    json_t *operation = json_pack(
        "{s:O, s:O, s:o, s:[O], s:o, s:o}", "operationId", json_object_get(m, "name"), "summary",
        json_object_get(m, "summary"), "description", make_description(m, acts), "tags",
        json_object_get(m, "name"), "requestBody", make_request(m), "responses", make_responses(m, acts));
    if (asks_for_key(m)) json_object_set_new(operation, "security", json_pack("[{s:[]}]", "apiKey"));
    if (acts)
        json_object_set_new(operation, "security", json_pack("[{s:[]}, {s:[]}]", "invocation", "login"));
    return operation;
}

static json_t *acting_schemes(void)
{
    return json_pack(
        "{s:{s:s, s:s, s:s, s:s}, s:{s:s, s:s, s:s}}", "invocation", "type", "apiKey", "in", "header", "name",
        "ce-balmsignature", "description",
        "Made by the platform with the function's own key, over the body and the other `ce-` headers of a "
        "CloudEvent of type `dev.balm.invocation`: intent, incident, target, epoch, attempt, time, deadline.",
        "login", "type", "http", "scheme", "basic", "description",
        "Of a direct call through the gateway: the platform's own login.");
}

static json_t *key_scheme(void)
{
    return json_pack("{s:{s:s, s:s, s:s, s:s}}", "apiKey", "type", "apiKey", "in", "header", "name",
                     "X-Api-Key", "description",
                     "One of the keys that whoever runs the function has put into its secret.");
}

bool openapi_is_known(const json_t *manifest)
{
    return json_is_object(json_object_get(manifest, "schema")) &&
           json_is_object(json_object_get(manifest, "reply")) && json_get_text(manifest, "name").len > 0 &&
           json_get_text(manifest, "summary").len > 0;
}

json_t *openapi_document(const json_t *manifest)
{
    bool acts = json_is_true(json_object_get(manifest, "acts"));
    json_t *components = json_pack("{s:o}", "schemas", make_schemas(manifest, acts));
    if (acts) json_object_set_new(components, "securitySchemes", acting_schemes());
    if (asks_for_key(manifest)) json_object_set_new(components, "securitySchemes", key_scheme());
    return json_pack("{s:s, s:{s:O, s:O, s:s}, s:[{s:s}], s:{s:{s:o}}, s:o}", "openapi", "3.1.0", "info",
                     "title", json_object_get(manifest, "name"), "summary",
                     json_object_get(manifest, "summary"), "version", BALM_VERSION, "servers", "url", ".",
                     "paths", "/", "post", make_operation(manifest, acts), "components", components);
}
