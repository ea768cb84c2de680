/* Fetched messages as columns, without a Message object each: the fast path of a fetcher.
 *
 * `Reader(consumer, timestamps, headers)` takes over the fetching of a confluent_kafka Consumer:
 * `forward` sends the queues of its partitions to a queue of the reader's own, and `read` drains
 * that into lists, one a column. All else stays with the Consumer: rebalances, commits, errors of
 * the client; whoever fetches has to call `Consumer.poll(0)` meanwhile. kqmp/kafka/compiled.py is
 * its only user; without this module kqmp/kafka/columns.py does the same in Python.
 *
 * Only librdkafka's public interface is used (`_librdkafka.h`). The client's handle, which
 * confluent_kafka does not give away, comes by librdkafka's plugin interface: with this file among
 * `plugin.library.paths` librdkafka calls `conf_init` below, and an interceptor gets the handle of
 * each client as it is made.
 *
 * A Reader belongs to one thread. `read` releases the GIL while it waits and while it gives messages
 * back. What `read` has taken is in its answer, or, if that cannot be built for
 * lack of memory, gone: the caller has to end then, as a fetcher does.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "_librdkafka.h"

/* The client that this thread has made last, until a Reader takes it: right after its constructor. */
static _Thread_local rd_kafka_t *newest_client;

/* ---- being found by librdkafka ---- */

static rd_kafka_resp_err_t
on_new(rd_kafka_t *client, const rd_kafka_conf_t *conf, void *opaque, char *errstr, size_t size)
{
    (void)conf;
    (void)opaque;
    (void)errstr;
    (void)size;
    newest_client = client;
    return 0;
}

/* Called by librdkafka when `plugin.library.paths` is set. */
__attribute__((visibility("default"))) rd_kafka_resp_err_t
conf_init(rd_kafka_conf_t *conf, void **opaque, char *errstr, size_t size)
{
    (void)opaque;
    (void)errstr;
    (void)size;
    return is_found ? rd.conf_interceptor_add_on_new(conf, "kqmp", on_new, NULL) : -1;
}

/* ---- one message's fields as Python objects; NULL and an exception where there is no memory ---- */

static PyObject *
bytes_or_none(const void *data, size_t size)
{
    if (data == NULL)
        Py_RETURN_NONE;
    return PyBytes_FromStringAndSize(data, (Py_ssize_t)size);
}

static PyObject *
headers_of(const rd_kafka_message_t *message)
{
    rd_kafka_headers_t *headers;
    if (rd.message_headers(message, &headers) != 0)
        Py_RETURN_NONE; /* there are none */
    size_t count = rd.header_cnt(headers);
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t at = 0; list != NULL && at < count; at++) {
        const char *name = "";
        const void *value = NULL;
        size_t size = 0;
        rd.header_get_all(headers, at, &name, &value, &size);
        /* Names are UTF-8 by the protocol, which nobody enforces. */
        PyObject *text = PyUnicode_DecodeUTF8(name, (Py_ssize_t)strlen(name), "replace");
        PyObject *data = text ? bytes_or_none(value, size) : NULL;
        PyObject *pair = data ? PyTuple_Pack(2, text, data) : NULL;
        Py_XDECREF(text);
        Py_XDECREF(data);
        if (pair == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)at, pair);
    }
    return list;
}

/* Append and give the reference away; -1 and an exception where that fails. */
static int
append(PyObject *list, PyObject *item)
{
    int status = item ? PyList_Append(list, item) : -1;
    Py_XDECREF(item);
    return status;
}

/* ---- Reader ---- */

typedef struct {
    PyObject_HEAD
    PyObject *consumer; /* keeps the client alive for as long as there is a queue */
    rd_kafka_t *client;
    rd_kafka_queue_t *queue; /* NULL once it is closed */
    rd_kafka_message_t **batch;
    size_t capacity;
    int with_timestamps, with_headers;
} Reader;

static PyObject *
reader_new(PyTypeObject *type, PyObject *args, PyObject *named)
{
    static char *names[] = {"consumer", "timestamps", "headers", NULL};
    PyObject *consumer;
    int timestamps, headers;
    if (!PyArg_ParseTupleAndKeywords(args, named, "Opp", names, &consumer, &timestamps, &headers))
        return NULL;
    if (newest_client == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "no client was made with this plugin on this thread");
        return NULL;
    }
    Reader *self = (Reader *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->consumer = Py_NewRef(consumer);
    self->client = newest_client;
    newest_client = NULL;
    self->queue = rd.queue_new(self->client);
    self->with_timestamps = timestamps;
    self->with_headers = headers;
    return (PyObject *)self;
}

/* Give back the queue, with what is in it, which nobody has taken; then the client may go. */
static int
reader_clear(Reader *self)
{
    rd_kafka_queue_t *queue = self->queue;
    self->queue = NULL;
    if (queue != NULL)
        rd.queue_destroy(queue);
    Py_CLEAR(self->consumer);
    return 0;
}

static PyObject *
reader_close(Reader *self, PyObject *unused)
{
    (void)unused;
    reader_clear(self);
    Py_RETURN_NONE;
}

static int
reader_traverse(Reader *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->consumer); /* whose callbacks may lead back here */
    return 0;
}

static void
reader_dealloc(Reader *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    reader_clear(self);
    PyMem_Free(self->batch);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static int
check_open(Reader *self)
{
    if (self->queue != NULL)
        return 0;
    PyErr_SetString(PyExc_RuntimeError, "the reader is closed");
    return -1;
}

static PyObject *
reader_forward(Reader *self, PyObject *args)
{
    const char *topic;
    int partition;
    if (!PyArg_ParseTuple(args, "si", &topic, &partition) || check_open(self) < 0)
        return NULL;
    rd_kafka_queue_t *source = rd.queue_get_partition(self->client, topic, (int32_t)partition);
    if (source == NULL) {
        PyErr_Format(PyExc_RuntimeError, "%s[%d] has no queue", topic, partition);
        return NULL;
    }
    rd.queue_forward(source, self->queue);
    rd.queue_destroy(source); /* our reference to it only */
    Py_RETURN_NONE;
}

/* The columns under construction. Lists of a fixed length are filled from the front. */
typedef struct {
    PyObject *runs, *offsets, *keys, *values, *stamps, *types, *headers, *errors;
    char *kinds; /* of `types` */
    Py_ssize_t value_bytes;
    Py_ssize_t filled;
    /* the run that is not in `runs` yet */
    int32_t partition;
    Py_ssize_t run_count;
} Columns;

static int
end_run(Columns *to)
{
    int status = 0;
    if (to->run_count)
        status = append(to->runs, Py_BuildValue("(in)", (int)to->partition, to->run_count));
    to->run_count = 0;
    return status;
}

static int
add_message(Columns *to, const rd_kafka_message_t *message)
{
    Py_ssize_t at = to->filled;
    PyObject *offset = PyLong_FromLongLong(message->offset);
    PyObject *key = bytes_or_none(message->key, message->key_len);
    PyObject *value = bytes_or_none(message->payload, message->len);
    if (offset == NULL || key == NULL || value == NULL) {
        Py_XDECREF(offset);
        Py_XDECREF(key);
        Py_XDECREF(value);
        return -1;
    }
    PyList_SET_ITEM(to->offsets, at, offset);
    PyList_SET_ITEM(to->keys, at, key);
    PyList_SET_ITEM(to->values, at, value);
    if (to->stamps != Py_None) {
        int kind = 0;
        PyObject *stamp = PyLong_FromLongLong(rd.message_timestamp(message, &kind));
        if (stamp == NULL)
            return -1;
        PyList_SET_ITEM(to->stamps, at, stamp);
        to->kinds[at] = (char)kind;
    }
    if (to->headers != Py_None) {
        PyObject *headers = headers_of(message);
        if (headers == NULL)
            return -1;
        PyList_SET_ITEM(to->headers, at, headers);
    }
    to->filled++;
    to->value_bytes += (Py_ssize_t)message->len;
    if (message->partition != to->partition && end_run(to) < 0)
        return -1;
    to->partition = message->partition;
    to->run_count++;
    return 0;
}

static int
add_error(Columns *to, const rd_kafka_message_t *message)
{
    const char *text = rd.message_errstr(message);
    text = text ? text : "";
    PyObject *said = PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "replace");
    if (said == NULL)
        return -1;
    return append(to->errors, Py_BuildValue("(iLiN)", (int)message->partition,
                                            (long long)message->offset, (int)message->err, said));
}

/* Return the columns of a batch as a tuple. */
static PyObject *
columns_of(const Reader *self, Py_ssize_t count)
{
    Py_ssize_t good = 0;
    for (Py_ssize_t at = 0; at < count; at++)
        good += self->batch[at]->err == 0;
    Columns to = {.runs = PyList_New(0), .errors = PyList_New(0), .offsets = PyList_New(good),
                  .keys = PyList_New(good), .values = PyList_New(good)};
    to.stamps = self->with_timestamps ? PyList_New(good) : Py_NewRef(Py_None);
    to.types = self->with_timestamps ? PyBytes_FromStringAndSize(NULL, good) : Py_NewRef(Py_None);
    to.headers = self->with_headers ? PyList_New(good) : Py_NewRef(Py_None);
    int is_well = to.runs && to.errors && to.offsets && to.keys && to.values && to.stamps &&
                  to.types && to.headers;
    if (is_well && self->with_timestamps)
        to.kinds = PyBytes_AS_STRING(to.types);
    for (Py_ssize_t at = 0; is_well && at < count; at++) {
        const rd_kafka_message_t *message = self->batch[at];
        is_well = (message->err ? add_error(&to, message) : add_message(&to, message)) == 0;
    }
    is_well = is_well && end_run(&to) == 0;
    PyObject *answer = NULL;
    if (is_well)
        answer = Py_BuildValue("(OOOOOOOnO)", to.runs, to.offsets, to.keys, to.values, to.stamps,
                               to.types, to.headers, to.value_bytes, to.errors);
    Py_XDECREF(to.runs);
    Py_XDECREF(to.offsets);
    Py_XDECREF(to.keys);
    Py_XDECREF(to.values);
    Py_XDECREF(to.stamps);
    Py_XDECREF(to.types);
    Py_XDECREF(to.headers);
    Py_XDECREF(to.errors);
    return answer;
}

static int
make_room(Reader *self, size_t count)
{
    if (count <= self->capacity)
        return 0;
    rd_kafka_message_t **batch = PyMem_Realloc(self->batch, count * sizeof(*batch));
    if (batch == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    self->batch = batch;
    self->capacity = count;
    return 0;
}

static PyObject *
reader_read(Reader *self, PyObject *args)
{
    Py_ssize_t wanted;
    int timeout_ms;
    if (!PyArg_ParseTuple(args, "ni", &wanted, &timeout_ms) || check_open(self) < 0)
        return NULL;
    if (wanted < 1) {
        PyErr_SetString(PyExc_ValueError, "count must be at least 1");
        return NULL;
    }
    if (make_room(self, (size_t)wanted) < 0)
        return NULL;
    ssize_t count;
    Py_BEGIN_ALLOW_THREADS
    /* librdkafka waits for a whole batch: what is there at once, or the first and what came with
     * it. */
    count = rd.consume_batch_queue(self->queue, 0, self->batch, (size_t)wanted);
    if (count == 0 && timeout_ms > 0) {
        count = rd.consume_batch_queue(self->queue, timeout_ms, self->batch, 1);
        if (count == 1 && wanted > 1) {
            ssize_t more =
                rd.consume_batch_queue(self->queue, 0, self->batch + 1, (size_t)wanted - 1);
            count += more > 0 ? more : 0;
        }
    }
    Py_END_ALLOW_THREADS
    if (count <= 0) /* -1 is an error that the interface does not have for consumers */
        Py_RETURN_NONE;
    PyObject *answer = columns_of(self, count);
    Py_BEGIN_ALLOW_THREADS
    for (ssize_t at = 0; at < count; at++)
        rd.message_destroy(self->batch[at]);
    Py_END_ALLOW_THREADS
    return answer;
}

static PyMethodDef reader_methods[] = {
    {"forward", (PyCFunction)(void (*)(void))reader_forward, METH_VARARGS,
     "forward(topic, partition): its messages come to `read`; see kqmp.kafka.compiled.expect."},
    {"read", (PyCFunction)(void (*)(void))reader_read, METH_VARARGS,
     "read(count, timeout_ms): what is there, or after a wait the first; None if nothing is."},
    {"close", (PyCFunction)(void (*)(void))reader_close, METH_NOARGS,
     "close(): give the queue back; before the client is closed."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot reader_slots[] = {
    {Py_tp_new, reader_new},
    {Py_tp_dealloc, reader_dealloc},
    {Py_tp_traverse, reader_traverse},
    {Py_tp_clear, reader_clear},
    {Py_tp_methods, reader_methods},
    {Py_tp_doc, "Takes the messages of a Consumer, made on this thread with this plugin."},
    {0, NULL},
};

static PyType_Spec reader_spec = {
    .name = "kqmp.kafka._columns.Reader",
    .basicsize = sizeof(Reader),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = reader_slots,
};

/* ---- the module ---- */

static PyObject *
module_find_library(PyObject *module, PyObject *path)
{
    (void)module;
    const char *text = PyUnicode_AsUTF8(path);
    return text ? PyBool_FromLong(find_library(text)) : NULL;
}

static PyMethodDef functions[] = {
    {"find_library", module_find_library, METH_O,
     "find_library(path): whether this loaded library is linked to all that is needed."},
    {NULL, NULL, 0, NULL},
};

static int
fill_module(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&reader_spec);
    int status = type ? PyModule_AddObjectRef(module, "Reader", type) : -1;
    Py_XDECREF(type);
    /* Raised with each change of what is offered here: compiled.py looks at it. */
    return status < 0 ? status : PyModule_AddIntConstant(module, "VERSION", 1);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, fill_module},
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "kqmp.kafka._columns",
    .m_doc = "Fetched messages as columns, without a Message object each.",
    .m_size = 0,
    .m_methods = functions,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__columns(void)
{
    return PyModuleDef_Init(&definition);
}
