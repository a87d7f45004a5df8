/* Programs of the allow list: what may stand in it, and which argv comes of a bot's arguments. */
#include "scene.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "gateway/broker_list.h"

static enum status read_list(struct scene *s, const char *text, struct broker_list *ret_list)
{
    return broker_list_read(scene_write(s, "acts.yaml", text, 0600), ret_list, &s->err);
}

static const char good[] =
    "programs:\n"
    "  flush:\n"
    "    functions: [run-program]\n"
    "    command: [/bin/flush, '--level=${level}', '${host}', 'a ${host}:${host}', '$HOME ${', '-x']\n"
    "    timeout: 2s\n"
    "    params:\n"
    "      level: {type: integer, default: 1, min: 1, max: 9}\n"
    "      host: {type: text, required: true, pattern: line}\n"
    "  plain: {functions: run-program, command: /bin/true}\n";

static enum status argv_of(struct scene *s, const struct broker_program *p, const char *arguments,
                           struct yaml_text_list *ret_words)
{
    json_t *json = NULL;
    CHECK_OK(s, json_parse(sv(arguments), 0, &json, &s->err));
    enum status st = broker_program_argv(p, json, &s->arena, ret_words, &s->err);
    json_release(json);
    return st;
}

static void places(struct scene *s)
{
    struct broker_list list;
    struct yaml_text_list words;
    CHECK_OK(s, read_list(s, good, &list));
    CHECK(list.n == 0 && list.n_programs == 2);
    const struct broker_program *p = broker_list_find_program(&list, SV("flush"));
    CHECK(p != NULL && p->timeout_ns == 2 * NS_PER_S && broker_list_find_program(&list, SV("flus")) == NULL);
    CHECK(broker_program_allows(p, SV("run-program")) && !broker_program_allows(p, SV("run")));
    CHECK_OK(s, argv_of(s, p, "{\"host\":\"h; rm -rf / $(id) ${level}\",\"level\":\"3\"}", &words));
    static const char *const expected[] = {"/bin/flush",
                                           "--level=3",
                                           "h; rm -rf / $(id) ${level}",
                                           "a h; rm -rf / $(id) ${level}:h; rm -rf / $(id) ${level}",
                                           "$HOME ${",
                                           "-x"};
    CHECK(words.n == ARRAY_LEN(expected));
    for (size_t i = 0; i < words.n; i++)
        CHECK(sv_eq(words.items[i], sv(expected[i])));
    CHECK_OK(s, argv_of(s, p, "{\"host\":\"\"}", &words));
    CHECK(sv_eq(words.items[1], SV("--level=1")) && words.items[2].len == 0);
    p = broker_list_find_program(&list, SV("plain"));
    CHECK(p->timeout_ns == 30 * NS_PER_S);
    CHECK_OK(s, broker_program_argv(p, NULL, &s->arena, &words, &s->err));
    CHECK(words.n == 1);
    broker_list_release(&list);
}

Test(broker_program, values_stand_in_their_places_as_they_are, .timeout = 30)
{
    play_without_gateway(places);
}

static void arguments(struct scene *s)
{
    static const struct {
        const char *arguments, *says;
    } bad[] = {
        {"{}", "'host' of program 'flush' is missing"},
        {"{\"host\":\"--now\"}", "begins with '-'"},
        {"{\"host\":\"a\\nb\"}", "'host'"},
        {"{\"host\":\"a\",\"level\":10}", "'level'"},
        {"{\"host\":\"a\",\"level\":\"x\"}", "'level'"},
        {"{\"host\":\"a\",\"hots\":\"b\"}", "did you mean 'host'"},
        {"{\"host\":[\"a\"]}", "'host'"},
        {"[]", "must be a JSON object"},
    };
    struct broker_list list;
    struct yaml_text_list words;
    CHECK_OK(s, read_list(s, good, &list));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        CHECK(argv_of(s, broker_list_find_program(&list, SV("flush")), bad[i].arguments, &words) ==
              STATUS_INVALID_ARGUMENT);
        if (strstr(s->err.message, bad[i].says) == NULL)
            (void)fprintf(stderr, "%zu: %s\n", i, s->err.message);
        CHECK(strstr(s->err.message, bad[i].says) != NULL);
    }
    broker_list_release(&list);
}

Test(broker_program, what_the_list_does_not_allow_is_refused_by_name, .timeout = 30)
{
    play_without_gateway(arguments);
}

static void lists(struct scene *s)
{
    static const struct {
        const char *entry, *says;
    } bad[] = {
        {"x: {functions: [a]}", "command"},
        {"x: {command: [/bin/true]}", "functions"},
        {"x: {functions: [a], command: []}", "0 words"},
        {"x: {functions: [a], command: [true]}", "absolute path"},
        {"x: {functions: [a], command: ['/bin/${p}'], params: {p: {type: text}}}", "absolute path"},
        {"x: {functions: [a], command: [/bin/true, '${p}']}", "${p} is none of its params"},
        {"x: {functions: [a], command: [/bin/true], params: {p: {type: text}}}", "has no place ${p}"},
        {"x: {functions: [a], command: [/bin/true, '${p}'], params: {p: {type: text-list}}}", "is a list"},
        {"x: {functions: [a], command: [/bin/true, '${p}'], params: {p: {type: shell}}}", "params:"},
        {"x: {functions: [a], command: [/bin/true, '${p}'], params: [p]}", "params"},
        {"x: {functions: [a], command: [/bin/true], timeout: 91s}", "timeout"},
        {"x: {functions: [a], command: [/bin/true], timeout: 0s}", "timeout"},
        {"x: {functions: [a], command: [/bin/true], shell: true}", "shell"},
        {"'../x': {functions: [a], command: [/bin/true]}", "letters, digits"},
        {"'-x': {functions: [a], command: [/bin/true]}", "letters, digits"},
    };
    struct broker_list list;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        enum status st = read_list(s, arena_printf(&s->arena, "programs:\n  %s\n", bad[i].entry).ptr, &list);
        if (st == STATUS_OK || strstr(s->err.message, bad[i].says) == NULL)
            (void)fprintf(stderr, "%s: %s\n", bad[i].entry, st == STATUS_OK ? "taken" : s->err.message);
        CHECK(st == STATUS_INVALID_ARGUMENT && strstr(s->err.message, "acts.yaml:2:") != NULL);
        CHECK(strstr(s->err.message, bad[i].says) != NULL);
    }
    CHECK(read_list(s, "programs: [x]\n", &list) == STATUS_INVALID_ARGUMENT);
}

Test(broker_program, a_mistake_in_the_list_is_refused_with_its_place, .timeout = 30)
{
    play_without_gateway(lists);
}
