/* What man(1) and shells read about the command line, made from the one table of commands and options: a new
 * command or option is in all of them. `balm help` prints them and `make install` keeps what it prints. */
#ifndef BALM_CLI_MANUAL_H
#define BALM_CLI_MANUAL_H

#include <stdio.h>

#include "cli/cli.h"

/* balm(1). Of a description, a line "word  text" becomes an entry and indented lines belong to it. */
void manual_print(const struct command *const *commands, size_t n, FILE *out);

/* Completes commands, options, the words and files that a command's `arguments` name ("tail|cat", "FILE"),
 * files and folders as values (by type and value_name), and words of a value_name ("bash|zsh"). */
void completion_print_bash(const struct command *const *commands, size_t n, FILE *out);
void completion_print_zsh(const struct command *const *commands, size_t n, FILE *out);

/* The next word of a command's `arguments` or an option's value name that is written literally ("tail",
 * "last"); moves *rest past it. false: there is none. */
bool completion_next_word(struct strview *rest, struct strview *ret_word);
/* Does it name a file or a folder? */
bool completion_takes_file(struct strview arguments);

#endif
