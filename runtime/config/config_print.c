/* The table of options as people read it: --help, the README's table, the man page. */
#include <string.h>

#include "base/buf.h"
#include "config/config_impl.h"
#include "config/roff.h"

enum { HELP_WIDTH = 110, HELP_LEFT_MAX = 36, HELP_TEXT_MAX = 1024 };

const char *config_value_name(const struct config_option *o)
{
    if (o->value_name != NULL) return o->value_name;
    switch (o->type) {
    case CONFIG_TEXT:
        return "TEXT";
    case CONFIG_PATH:
        return "PATH";
    case CONFIG_INT:
        return "N";
    case CONFIG_DURATION:
        return "DURATION";
    case CONFIG_BYTES:
        return "BYTES";
    case CONFIG_BOOL:
        break;
    }
    return "";
}

/* "  -d, --data DIR" or "      exec_timeout=DURATION". Returns its length. */
static size_t left_column(const struct config_option *o, char ret_text[HELP_TEXT_MAX])
{
    const char *value = config_value_name(o);
    if (o->name == NULL) {
        (void)snprintf(ret_text, HELP_TEXT_MAX, "      %s=%s", o->env,
                       o->type == CONFIG_BOOL ? "true|false" : value);
        return strlen(ret_text);
    }
    char letter[8] = "    ";
    if (o->short_name != 0) (void)snprintf(letter, sizeof(letter), "-%c, ", o->short_name);
    (void)snprintf(ret_text, HELP_TEXT_MAX, "  %s--%s%s%s", letter, o->name, value[0] ? " " : "", value);
    return strlen(ret_text);
}

/* "limit of one request (default 30s, 0s to 1h, env exec_timeout)" */
static void right_column(const struct config_option *o, char ret_text[HELP_TEXT_MAX])
{
    struct buf b;
    buf_init(&b, HELP_TEXT_MAX - 1);
    const char *separator = " (";
    buf_append(&b, sv(o->help));
    if (o->default_text != NULL && o->default_text[0] != '\0') {
        buf_printf(&b, "%sdefault %s", separator, o->default_text);
        separator = ", ";
    }
    if (config_has_range(o)) {
        char min[NUMBER_TEXT_MAX], max[NUMBER_TEXT_MAX];
        buf_printf(&b, "%s%s to %s", separator, config_number_format(o->type, o->min, min),
                   config_number_format(o->type, o->max, max));
        separator = ", ";
    }
    if (o->env != NULL && o->name != NULL) {
        buf_printf(&b, "%senv %s", separator, o->env);
        separator = ", ";
    }
    if (separator[0] == ',') buf_append_char(&b, ')');
    memcpy(ret_text, buf_view(&b).ptr, b.len);
    ret_text[b.len] = '\0';
    buf_release(&b);
}

/* Words of `text` from column `column` on, where the cursor already is. */
static void print_wrapped(FILE *out, const char *text, size_t column)
{
    struct strview rest = sv(text), word;
    size_t at = column;
    while (sv_next(&rest, ' ', &word)) {
        if (word.len == 0) continue;
        if (at > column && at + 1 + word.len > HELP_WIDTH) {
            fprintf(out, "\n%*s", (int)column, "");
            at = column;
        }
        at += (size_t)fprintf(out, "%s%.*s", at > column ? " " : "", SV_ARG(word));
    }
    fputc('\n', out);
}

void config_print_help(const struct config_option *options, size_t n, FILE *out)
{
    char left[HELP_TEXT_MAX], right[HELP_TEXT_MAX];
    size_t column = 0;
    for (size_t i = 0; i < n; i++) {
        size_t len = left_column(&options[i], left);
        if (len > column && len <= HELP_LEFT_MAX) column = len;
    }
    column += 2;
    for (size_t i = 0; i < n; i++) {
        size_t len = left_column(&options[i], left);
        right_column(&options[i], right);
        if (len + 2 > column)
            fprintf(out, "%s\n%*s", left, (int)column, "");
        else
            fprintf(out, "%-*s", (int)column, left);
        print_wrapped(out, right, column);
    }
}

static void print_cell(FILE *out, const char *text)
{
    for (; *text != '\0'; text++) { /* a pipe would end the cell even inside a code span */
        if (*text == '|') fputc('\\', out);
        fputc(*text, out);
    }
}

void config_print_markdown(const struct config_option *options, size_t n, FILE *out)
{
    fputs("| option | environment | default | range | meaning |\n|---|---|---|---|---|\n", out);
    for (size_t i = 0; i < n; i++) {
        const struct config_option *o = &options[i];
        const char *value = config_value_name(o);
        char min[NUMBER_TEXT_MAX], max[NUMBER_TEXT_MAX];
        fputs("| ", out);
        if (o->name != NULL) {
            if (o->short_name != 0) fprintf(out, "`-%c`, ", o->short_name);
            fprintf(out, "`--%s%s", o->name, value[0] ? " " : "");
            print_cell(out, value);
            fputc('`', out);
        }
        fprintf(out, o->env ? " | `%s` | " : " | %s | ", o->env ? o->env : "");
        if (o->default_text != NULL && o->default_text[0] != '\0') {
            fputc('`', out);
            print_cell(out, o->default_text);
            fputc('`', out);
        }
        fputs(" | ", out);
        if (config_has_range(o))
            fprintf(out, "%s to %s", config_number_format(o->type, o->min, min),
                    config_number_format(o->type, o->max, max));
        fputs(" | ", out);
        print_cell(out, o->help);
        fputs(" |\n", out);
    }
}

void config_print_roff(const struct config_option *options, size_t n, FILE *out)
{
    char right[HELP_TEXT_MAX];
    for (size_t i = 0; i < n; i++) {
        const struct config_option *o = &options[i];
        const char *value = config_value_name(o);
        fputs(".TP\n", out);
        if (o->short_name != 0) fprintf(out, "\\fB\\-%c\\fR, ", o->short_name);
        fputs(o->name != NULL ? "\\fB\\-\\-" : "\\fB", out);
        roff_print(out, sv(o->name != NULL ? o->name : o->env));
        fputs("\\fR", out);
        if (value[0] != '\0') {
            fputs(o->name != NULL ? " \\fI" : "=\\fI", out);
            roff_print(out, sv(value));
            fputs("\\fR", out);
        }
        fputc('\n', out);
        right_column(o, right);
        roff_print(out, sv(right));
        fputc('\n', out);
    }
}
