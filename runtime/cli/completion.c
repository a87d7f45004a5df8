#include "cli/manual.h"

#include <string.h>

/* ---- what `arguments` and value names say ---- */

static bool is_word_character(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
}

bool completion_next_word(struct strview *rest, struct strview *ret_word)
{
    while (rest->len > 0) {
        size_t end = 0;
        while (end < rest->len && strchr(" |[]", rest->ptr[end]) == NULL)
            end++;
        struct strview token = sv_sub(*rest, 0, end);
        *rest = sv_sub(*rest, end + 1, rest->len);
        size_t n_plain = 0;
        while (n_plain < token.len && is_word_character(token.ptr[n_plain]))
            n_plain++;
        if (token.len == 0 || n_plain < token.len || token.ptr[0] == '-') continue;
        *ret_word = token;
        return true;
    }
    return false;
}

bool completion_takes_file(struct strview arguments)
{
    return sv_contains(arguments, SV("FILE")) || sv_contains(arguments, SV("DIR"));
}

static bool names_a_command(struct strview arguments)
{
    return sv_contains(arguments, SV("COMMAND"));
}

static bool has_words(const char *value_name)
{
    struct strview rest = sv(value_name), word;
    return strchr(value_name, '|') != NULL && completion_next_word(&rest, &word);
}

static void print_words(struct strview text, FILE *out)
{
    struct strview word;
    const char *separator = "";
    while (completion_next_word(&text, &word)) {
        fprintf(out, "%s%.*s", separator, SV_ARG(word));
        separator = " ";
    }
}

static void print_command_names(const struct command *const *commands, size_t n, FILE *out)
{
    for (size_t i = 0; i < n; i++)
        fprintf(out, "%s%s", i > 0 ? " " : "", commands[i]->name);
}

/* What may stand behind a command where no option is: words, names of commands. */
static void print_arguments(const struct command *c, const struct command *const *commands, size_t n,
                            FILE *out)
{
    if (names_a_command(sv(c->arguments)))
        print_command_names(commands, n, out);
    else
        print_words(sv(c->arguments), out);
}

/* ---- bash ---- */

/* Bash parts words at '=', so "--data=x" arrives as three. */
static const char bash_head[] =
    "# bash completion for balm. Made by: balm help --completion bash\n"
    "_balm()\n"
    "{\n"
    "    local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}\n"
    "    local command=${COMP_WORDS[1]} words= kind=\n"
    "    if [ \"$current\" = = ]; then\n"
    "        current=\n"
    "    elif [ \"$before\" = = ]; then\n"
    "        before=${COMP_WORDS[COMP_CWORD-2]}\n"
    "    fi\n"
    "    COMPREPLY=()\n"
    "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
    "        command= words='";
static const char bash_tail[] =
    "    esac\n"
    "    case $kind in\n"
    "    file | folder)\n"
    "        compopt -o filenames 2>/dev/null\n"
    "        if [ $kind = file ]; then\n"
    "            mapfile -t COMPREPLY < <(compgen -f -- \"$current\")\n"
    "        else\n"
    "            mapfile -t COMPREPLY < <(compgen -d -- \"$current\")\n"
    "        fi\n"
    "        [ -z \"$words\" ] || mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -W \"$words\" -- \"$current\")\n"
    "        ;;\n"
    "    value) ;;\n"
    "    *) mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\") ;;\n"
    "    esac\n"
    "}\n"
    "complete -F _balm balm\n";

static const char *value_kind(const struct config_option *o)
{
    if (o->type != CONFIG_PATH) return "value";
    return strcmp(config_value_name(o), "DIR") == 0 ? "folder" : "file";
}

/* "-f | --file) kind=file ;;": what comes behind an option that takes a value. */
static void print_bash_value(const struct config_option *o, FILE *out)
{
    const char *value = config_value_name(o);
    if (o->name == NULL || o->type == CONFIG_BOOL) return;
    fputs("        ", out);
    if (o->short_name != 0) fprintf(out, "-%c | ", o->short_name);
    fprintf(out, "--%s) ", o->name);
    if (has_words(value)) {
        fputs("kind=words words='", out);
        print_words(sv(value), out);
        fputs("' ;;\n", out);
    } else {
        fprintf(out, "kind=%s ;;\n", value_kind(o));
    }
}

static void print_bash_command(const struct command *c, const struct command *const *commands, size_t n,
                               FILE *out)
{
    fprintf(out, "    %s)\n        case $before in\n", c->name);
    for (size_t i = 0; i < c->n_options; i++)
        print_bash_value(&c->options[i], out);
    fputs("        *)\n            case $current in\n            -*) words='--help", out);
    for (size_t i = 0; i < c->n_options; i++)
        if (c->options[i].name != NULL) fprintf(out, " --%s", c->options[i].name);
    fputs("' ;;\n            *) words='", out);
    print_arguments(c, commands, n, out);
    fprintf(out, "'%s ;;\n            esac\n            ;;\n        esac\n        ;;\n",
            completion_takes_file(sv(c->arguments)) ? " kind=file" : "");
}

void completion_print_bash(const struct command *const *commands, size_t n, FILE *out)
{
    fputs(bash_head, out);
    print_command_names(commands, n, out);
    fputs(" --help --version'\n    fi\n    case $command in\n", out);
    for (size_t i = 0; i < n; i++)
        print_bash_command(commands[i], commands, n, out);
    fputs(bash_tail, out);
}

/* ---- zsh ---- */

/* Inside single quotes, and where _arguments and _describe read colons and brackets. */
static void print_zsh_text(struct strview text, FILE *out)
{
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (c == '\'')
            fputs("'\\''", out);
        else if (c == ':' || c == '[' || c == ']' || c == '\\')
            fprintf(out, "\\%c", c);
        else
            fputc(c, out);
    }
}

static void print_zsh_action(const struct config_option *o, FILE *out)
{
    const char *value = config_value_name(o);
    if (o->type == CONFIG_BOOL) return;
    fputc(':', out);
    print_zsh_text(sv(value), out);
    fputc(':', out);
    if (has_words(value)) {
        fputc('(', out);
        print_words(sv(value), out);
        fputc(')', out);
    } else if (o->type == CONFIG_PATH) {
        fputs(strcmp(value, "DIR") == 0 ? "_files -/" : "_files", out);
    }
}

/* '--data=[help]:DIR:_files -/': one for each spelling; a spelling shuts out the other. */
static void print_zsh_option(const struct config_option *o, FILE *out)
{
    bool is_bool = o->type == CONFIG_BOOL;
    if (o->name == NULL) return;
    for (int is_long = o->short_name != 0 ? 0 : 1; is_long < 2; is_long++) {
        fputs(" \\\n            '", out);
        if (o->short_name != 0) fprintf(out, "(-%c --%s)", o->short_name, o->name);
        if (is_long)
            fprintf(out, "--%s%s[", o->name, is_bool ? "" : "=");
        else
            fprintf(out, "-%c%s[", o->short_name, is_bool ? "" : "+");
        print_zsh_text(sv(o->help), out);
        fputc(']', out);
        print_zsh_action(o, out);
        fputc('\'', out);
    }
}

static void print_zsh_command(const struct command *c, const struct command *const *commands, size_t n,
                              FILE *out)
{
    struct strview words = sv(c->arguments), word;
    fprintf(out, "    %s)\n        _arguments '--help[what it does and its options]'", c->name);
    for (size_t i = 0; i < c->n_options; i++)
        print_zsh_option(&c->options[i], out);
    if (names_a_command(words) || completion_next_word(&words, &word)) {
        fputs(" \\\n            '1:argument:(", out);
        print_arguments(c, commands, n, out);
        fputs(")'", out);
    }
    if (completion_takes_file(sv(c->arguments))) fputs(" \\\n            '*:file:_files'", out);
    fputs("\n        ;;\n", out);
}

void completion_print_zsh(const struct command *const *commands, size_t n, FILE *out)
{
    fputs(
        "#compdef balm\n# Made by: balm help --completion zsh\n_balm()\n{\n    local -a commands\n    commands=(\n",
        out);
    for (size_t i = 0; i < n; i++) {
        fprintf(out, "        '%s:", commands[i]->name);
        print_zsh_text(sv(commands[i]->summary), out);
        fputs("'\n", out);
    }
    fputs("    )\n"
          "    if (( CURRENT == 2 )); then\n"
          "        _describe -t commands 'balm command' commands\n"
          "        return\n"
          "    fi\n"
          "    local command=$words[2]\n"
          "    shift words\n"
          "    (( CURRENT-- ))\n"
          "    case $command in\n",
          out);
    for (size_t i = 0; i < n; i++)
        print_zsh_command(commands[i], commands, n, out);
    fputs("    esac\n}\n_balm \"$@\"\n", out);
}
