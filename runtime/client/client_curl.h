/* libcurl's functions, opened on first use (shared by runtime/client/client*.c only). */
#ifndef BALM_CLIENT_CURL_H
#define BALM_CLIENT_CURL_H

#define CURL_DISABLE_TYPECHECK
#include <curl/curl.h>

#include "base/status.h"

/* One entry a function, named as libcurl names it without its prefix. Valid after client_curl_open()
 * succeeded once. */
struct client_curl {
    CURLcode (*global_init)(long flags);
    CURL *(*easy_init)(void);
    void (*easy_cleanup)(CURL *easy);
    CURLcode (*easy_setopt)(CURL *easy, CURLoption option, ...);
    CURLcode (*easy_getinfo)(CURL *easy, CURLINFO info, ...);
    const char *(*easy_strerror)(CURLcode code);
    CURLM *(*multi_init)(void);
    CURLMcode (*multi_setopt)(CURLM *multi, CURLMoption option, ...);
    CURLMcode (*multi_add_handle)(CURLM *multi, CURL *easy);
    CURLMcode (*multi_remove_handle)(CURLM *multi, CURL *easy);
    CURLMcode (*multi_socket_action)(CURLM *multi, curl_socket_t fd, int events, int *ret_running);
    CURLMsg *(*multi_info_read)(CURLM *multi, int *ret_left);
    CURLMcode (*multi_cleanup)(CURLM *multi);
    const char *(*multi_strerror)(CURLMcode code);
};

extern struct client_curl client_curl;

/* Opens the library and initialises it, once a process. In a fiber the work is done by a worker thread, so
 * the loop goes on while 40 shared objects are mapped. STATUS_UNAVAILABLE: not installed or too old. */
enum status client_curl_open(struct error *err) MUST_USE;

#endif
