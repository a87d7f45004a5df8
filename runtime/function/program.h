/* A program in any language as a function: what stands in its place and speaks the function contract for it
 * (function/function.h: socket, health, drain, limits, signed invocations), as OpenFaaS's watchdogs do
 * (contracts/openfaas.md §1.2, §1.3). No shell is involved.
 *
 *   balm-watchdog [--folder DIR] -- PROGRAM [ARG …]
 *
 *   stdin      the manifest (bot.yaml as JSON, function/manifest.h); nothing: a plain function
 *   --folder   where the program runs ("/")
 *   PROGRAM    an absolute path
 *
 *   mode             streaming, serializing (what no mode means, too): one process a request;
 *                    http: one process for all, reached at its port
 *   max_output       longest answer (8MiB); in http mode of a bot, others pass part by part
 *   content_type     of answers; else the request's, for a bot application/json
 *   combine_output   true: stderr is part of the answer, and not of the log
 *   upstream_url     http: http://127.0.0.1:PORT[/PREFIX], where the program listens. Left out, or with
 *                    port 0: a free port, which the program is told by PORT and port
 *   and the settings of every function; max_inflight is 64 here where nobody sets it
 *
 * One process a request: the body comes on stdin; stdout is the answer; stderr goes to the function's log,
 * line by line. Its environment is the function's own, with
 *
 *   Http_Method, Http_Path, Http_Query, Http_Host, Http_Content_Length, Http_<Header>
 *                         as of the classic watchdog
 *   BALM_INTENT, BALM_INCIDENT, BALM_TARGET, BALM_ATTEMPT, BALM_TIME, BALM_DEADLINE
 *                         of a signed invocation
 *   BALM_PARAM_<name>     each parameter of its bot.yaml; entries of a list, a line each
 *
 * Exit 0 is 200; any other exit is 500. At the time limit the program's whole session is killed (SIGTERM, 2 s
 * later SIGKILL): 504.
 *
 * What its bot.yaml says counts as for a bot in C, also at GET /openapi.json (function/openapi.h). With
 * parameters, stdin is the JSON object of all of them,
 * checked, defaults filled in. One that acts takes signed invocations only and answers one JSON object:
 *
 *   {"state":"done","message":"…","detail":{…},"undo":"…"}
 *   {"state":"failed","message":"…","retry":true}
 *
 *   state          done, unchanged, refused, failed, unknown
 *   another exit   failed, with the last line of stderr; exit 75 (EX_TEMPFAIL): to be tried again
 *   killed, too late, or exit 0 without such an object
 *                  unknown: it may have acted, so its on_unknown decides
 *
 * mode=http: the program is started with the function, and not ready until something listens at its port.
 * Requests go there with method, path, query and headers as they came. When it ends by itself the function
 * ends, too, with exit 1: whoever supervises it starts both again, with backoff. For one that acts, the
 * answer's body is the object above. */
#ifndef BALM_FUNCTION_PROGRAM_H
#define BALM_FUNCTION_PROGRAM_H

/* main() of balm-watchdog. Returns the exit code. */
int program_main(int argc, char **argv);

#endif
