/* The part of librdkafka's public interface (rdkafka.h) that `_columns.c` uses, found at run time.
 *
 * Nothing is linked: the functions are looked up in the librdkafka that confluent_kafka is linked
 * to, so that its clients are theirs.
 */
#ifndef KQMP_LIBRDKAFKA_H
#define KQMP_LIBRDKAFKA_H

#include <dlfcn.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

typedef struct rd_kafka_s rd_kafka_t;
typedef struct rd_kafka_conf_s rd_kafka_conf_t;
typedef struct rd_kafka_queue_s rd_kafka_queue_t;
typedef struct rd_kafka_headers_s rd_kafka_headers_t;
typedef int rd_kafka_resp_err_t; /* an enum; 0 is no error */

typedef struct {
    rd_kafka_resp_err_t err;
    void *rkt;
    int32_t partition;
    void *payload;
    size_t len;
    void *key;
    size_t key_len;
    int64_t offset;
    void *_private;
} rd_kafka_message_t;

typedef rd_kafka_resp_err_t on_new_t(
    rd_kafka_t *client, const rd_kafka_conf_t *conf, void *opaque, char *errstr, size_t size);

/* name in rdkafka.h, its type */
#define RD_KAFKA_FUNCTIONS(X)                                                                      \
    X(conf_interceptor_add_on_new,                                                                 \
      rd_kafka_resp_err_t (*)(rd_kafka_conf_t *, const char *, on_new_t *, void *))                \
    X(queue_new, rd_kafka_queue_t *(*)(rd_kafka_t *))                                              \
    X(queue_destroy, void (*)(rd_kafka_queue_t *))                                                 \
    X(queue_get_partition, rd_kafka_queue_t *(*)(rd_kafka_t *, const char *, int32_t))             \
    X(queue_forward, void (*)(rd_kafka_queue_t *, rd_kafka_queue_t *))                             \
    X(consume_batch_queue,                                                                         \
      ssize_t (*)(rd_kafka_queue_t *, int, rd_kafka_message_t **, size_t))                         \
    X(message_destroy, void (*)(rd_kafka_message_t *))                                             \
    X(message_errstr, const char *(*)(const rd_kafka_message_t *))                                 \
    X(message_timestamp, int64_t (*)(const rd_kafka_message_t *, int *))                           \
    X(message_headers,                                                                             \
      rd_kafka_resp_err_t (*)(const rd_kafka_message_t *, rd_kafka_headers_t **))                  \
    X(header_cnt, size_t (*)(const rd_kafka_headers_t *))                                          \
    X(header_get_all,                                                                              \
      rd_kafka_resp_err_t (*)(                                                                     \
          const rd_kafka_headers_t *, size_t, const char **, const void **, size_t *))

/* Looked up once, by `find_library`, before a client is made. */
static struct {
#define MEMBER(name, type) __typeof__((type)0) name;
    RD_KAFKA_FUNCTIONS(MEMBER)
#undef MEMBER
} rd;
static int is_found;

/* Look all functions up in what the library at `path`, which is loaded, was linked to; whether all
 * are there. */
static int
find_library(const char *path)
{
    void *library = is_found ? NULL : dlopen(path, RTLD_LAZY | RTLD_NOLOAD);
    if (library == NULL)
        return is_found;
    is_found = 1;
#define LOOK_UP(name, type)                                                                        \
    rd.name = (type)dlsym(library, "rd_kafka_" #name);                                             \
    is_found &= rd.name != NULL;
    RD_KAFKA_FUNCTIONS(LOOK_UP)
#undef LOOK_UP
    dlclose(library); /* one reference of several: it stays loaded */
    return is_found;
}

#endif
