/* What is derived from bot.yaml (function/manifest.h) at build time. Independent of the platform's
 * modules, so that it can be built and run before the bots. The same files give the same bytes, wherever
 * and whenever.
 *
 *   balm generate bot FILE --out DIR     DIR/NAME.gen.h: struct NAME_params, prototype of NAME_handle
 *                                        DIR/NAME.gen.c: validating decoder, function_def with the manifest
 *                                        and the OpenAPI document as JSON, main()
 *   balm generate stack FILES…           stack.yml in OpenFaaS's form, on stdout
 *   balm generate knative FILES…         Knative Services, on stdout; --image-prefix REGISTRY/ for the images
 *   balm generate readme FILES…          the README's table of functions, on stdout
 *   … --json                             which files were written; the stack file or the Services as JSON;
 * the manifests
 *
 * In C, '-' of a name is '_'. Of the folder's name nothing is used, so FILE may stand anywhere. */
#ifndef BALM_CLI_GENERATE_H
#define BALM_CLI_GENERATE_H

#include <stdio.h>

#include "function/manifest.h"

/* argv[0] is the command's own name, argv[1] what to generate. Returns the exit code (enum cli_exit): 2
 * for a wrong bot.yaml, named with FILE:LINE:COLUMN on stderr. */
int generate_command(int argc, char **argv);

/* The parts, each to a buffer. */
void generate_header(const struct manifest *m, struct buf *b);
void generate_source(const struct manifest *m, struct buf *b);
void generate_stack(const struct manifest *manifests, size_t n, struct buf *b);
void generate_knative(const struct manifest *manifests, size_t n, struct strview image_prefix, struct buf *b);
void generate_readme(const struct manifest *manifests, size_t n, struct buf *b);

#endif
