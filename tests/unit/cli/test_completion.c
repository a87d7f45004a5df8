#include "cli/manual.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static void check_words(const char *arguments, const char *expected)
{
    struct strview rest = sv(arguments), word;
    char words[256] = "";
    size_t len = 0;
    while (completion_next_word(&rest, &word))
        len += (size_t)snprintf(words + len, sizeof(words) - len, "%.*s ", SV_ARG(word));
    cr_expect_str_eq(words, expected, "'%s' gave '%s'", arguments, words);
}

Test(completion, words_are_what_is_written_in_small_letters)
{
    check_words("tail|cat|verify", "tail cat verify ");
    check_words("INCIDENT|last", "last ");
    check_words("bot FILE --out DIR | stack FILE... | readme FILE...", "bot stack readme ");
    check_words("list | show ID [--json]", "list show ");
    check_words("[COMMAND]", "");
    check_words("", "");
    check_words("FILE|-", ""); /* standard input is for the hand to type */
}

Test(completion, files_are_completed_where_arguments_name_them)
{
    cr_expect(completion_takes_file(SV("bot FILE --out DIR")));
    cr_expect(completion_takes_file(SV("FILE|-")));
    cr_expect_not(completion_takes_file(SV("INCIDENT|last")));
}

static const struct config_option options[] = {
    {.name = "data", .short_name = 'd', .type = CONFIG_PATH, .value_name = "DIR", .help = "it's [here]: ok"},
    {.name = "for", .type = CONFIG_TEXT, .value_name = "bash|zsh", .help = "a shell"},
    {.name = "json", .type = CONFIG_BOOL, .help = "JSON"},
    {.env = "hidden", .type = CONFIG_INT, .help = "from the environment only"},
};
static const struct command command = {
    .name = "try",
    .arguments = "one|two FILE",
    .summary = "a: try",
    .description = "one  the first\n     goes on\ntwo  the second\nAnd then.",
    .options = options,
    .n_options = ARRAY_LEN(options),
};
static const struct command *const commands[] = {&command};

static char *printed(void (*print)(const struct command *const *, size_t, FILE *))
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    print(commands, ARRAY_LEN(commands), out);
    (void)fclose(out);
    return text;
}

static void expect_in(char *text, const char *part)
{
    cr_expect_not_null(strstr(text, part), "'%s' is not in:\n%s", part, text);
}

Test(completion, zsh_reads_help_with_quotes_brackets_and_colons)
{
    char *text = printed(completion_print_zsh);
    expect_in(text, "'try:a\\: try'");
    expect_in(text, "'(-d --data)--data=[it'\\''s \\[here\\]\\: ok]:DIR:_files -/'");
    expect_in(text, "'--for=[a shell]:bash|zsh:(bash zsh)'");
    expect_in(text, "'1:argument:(one two)'");
    cr_expect_null(strstr(text, "hidden"));
    free(text);
}

Test(completion, bash_knows_what_each_value_is)
{
    char *text = printed(completion_print_bash);
    expect_in(text, "-d | --data) kind=folder ;;");
    expect_in(text, "--for) kind=words words='bash zsh' ;;");
    expect_in(text, "words='--help --data --for --json'");
    expect_in(text, "words='one two' kind=file");
    free(text);
}

Test(manual, description_becomes_entries_and_paragraphs)
{
    char *text = printed(manual_print);
    expect_in(text, ".TP\n\\fBone\\fR\nthe first\ngoes on\n.TP\n\\fBtwo\\fR\nthe second\n.PP\nAnd then.\n");
    expect_in(text, ".TP\n\\fB\\-d\\fR, \\fB\\-\\-data\\fR \\fIDIR\\fR\n");
    expect_in(text, ".TP\n\\fBhidden\\fR=\\fIN\\fR\n");
    free(text);
}
