#include "cli/manual.h"

#include <string.h>

#include "config/roff.h"

static void print_name_section(FILE *out)
{
    fputs(
        ".TH BALM 1 \"" BALM_VERSION_DATE "\" \"balm " BALM_VERSION "\" \"User Commands\"\n"
        ".SH NAME\n"
        "balm \\- turns alerts into verified repairs, and proves what it did\n"
        ".SH SYNOPSIS\n"
        "\\fBbalm\\fR \\fICOMMAND\\fR [\\fIOPTIONS\\fR] [\\fIARGUMENTS\\fR]\n"
        ".SH DESCRIPTION\n"
        "Alerts come in, are on disk before they are accepted, and become decisions under guardrails, calls of "
        "small bots that repair one thing each,\n"
        "checks that it worked, and records that nobody can change unseen.\n"
        "\\fBbalm up\\fR is the platform; the other commands ask it, steer it, or read its journal.\n",
        out);
}

/* "tail    the last records" -> "tail", "the last records": two spaces part them. false: ordinary text. */
static bool split_entry(struct strview line, struct strview *ret_word, struct strview *ret_text)
{
    if (sv_starts_with(line, SV(" "))) return false;
    for (size_t i = 0; i + 1 < line.len; i++) {
        if (line.ptr[i] != ' ' || line.ptr[i + 1] != ' ') continue;
        *ret_word = sv_sub(line, 0, i);
        *ret_text = sv_trim(sv_sub(line, i, line.len));
        return true;
    }
    return false;
}

static void print_description(struct strview text, FILE *out)
{
    struct strview line, word, rest;
    bool is_entry = false;
    if (!split_entry(text, &word, &rest)) fputs(".PP\n", out);
    while (sv_next(&text, '\n', &line)) {
        if (split_entry(line, &word, &rest)) {
            fputs(".TP\n\\fB", out);
            roff_print(out, word);
            fputs("\\fR\n", out);
            is_entry = true;
        } else {
            bool goes_on = sv_starts_with(line, SV(" "));
            if (is_entry && !goes_on) fputs(".PP\n", out);
            is_entry = is_entry && goes_on;
            rest = sv_trim(line);
        }
        if (rest.len == 0) {
            fputs(".PP\n", out);
            continue;
        }
        roff_print(out, rest);
        fputc('\n', out);
    }
}

static void print_command(const struct command *c, FILE *out)
{
    fprintf(out, ".SS balm %s\n", c->name);
    fprintf(out, "\\fBbalm %s\\fR%s", c->name, c->n_options > 0 ? " [\\fIOPTIONS\\fR]" : "");
    if (c->arguments[0] != '\0') {
        fputc(' ', out);
        roff_print(out, sv(c->arguments));
    }
    fputc('\n', out);
    print_description(sv(c->description != NULL ? c->description : c->summary), out);
    config_print_roff(c->options, c->n_options, out);
}

static void print_exit_status(FILE *out)
{
    fputs(".SH EXIT STATUS\n", out);
    for (size_t i = 0; i < CLI_N_EXITS; i++) {
        fprintf(out, ".TP\n\\fB%zu\\fR\n", i);
        roff_print(out, sv(cli_exit_meanings[i]));
        fputc('\n', out);
    }
}

static void print_files(FILE *out)
{
    fputs(
        ".SH FILES\n"
        ".TP\n\\fI/etc/balm/balm.env\\fR\nsettings of the service, as the variables named above\n"
        ".TP\n\\fI/etc/balm/stack.yml\\fR\nfunctions that the service deploys at its start\n"
        ".TP\n\\fI/etc/balm/runbooks/*.yaml\\fR\nwhat is done about which alert: \\fBbalm\\-runbook\\fR(5)\n"
        ".TP\n\\fI/etc/balm/host\\-acts.yaml\\fR\nwhat bots may do on this host: \\fBbalm\\-host\\-acts\\fR(5)\n"
        ".TP\n\\fI/var/lib/balm\\fR, \\fI~/.local/state/balm\\fR\n"
        "the data folder of root and of other users: journal, secrets, state\n"
        ".SH SEE ALSO\n"
        "\\fBbalm\\-runbook\\fR(5), \\fBbalm\\-host\\-acts\\fR(5), \\fBbalm\\-troubleshooting\\fR(7),\n"
        "\\fBsystemctl\\fR(1)\n",
        out);
}

void manual_print(const struct command *const *commands, size_t n, FILE *out)
{
    print_name_section(out);
    fputs(".SH COMMANDS\nEvery command takes \\fB\\-\\-help\\fR.\n", out);
    for (size_t i = 0; i < n; i++)
        print_command(commands[i], out);
    print_exit_status(out);
    print_files(out);
}
